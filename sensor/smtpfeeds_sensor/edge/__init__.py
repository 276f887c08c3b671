"""Between the network and the dialogue: the only package that imports Twisted's transports.

``listen`` opens the sockets. A client's connection (``connection``) is in one state at a time:
``arriving`` has those before its banner, ``talking`` those of the dialogue, ``ending`` the last.
``sending`` sends replies, ``reception`` has what all connections share, ``limits`` the bounds of
connections and times; ``proxy_header`` and ``tls`` are for the PROXY protocol and STARTTLS.
"""

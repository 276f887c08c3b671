"""Between the network and the dialogue: the only room that imports Twisted's transports.

``listen`` opens the sockets. A client's connection (``connection``) is in one state at a time:
``arriving`` has those before its banner, ``talking`` those of the dialogue, ``ending`` the last.
``sending`` is how replies leave, ``reception`` what all connections share, ``limits`` who may come
and for how long, ``proxy_header`` and ``tls`` what their names say.
"""

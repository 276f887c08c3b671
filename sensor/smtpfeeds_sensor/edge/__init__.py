"""Between the network and the dialogue: the only package that imports Twisted's transports.

``listen`` opens the sockets. A client's connection (``connection``) is in one state at a time:
``initiation`` has those before its banner, ``session`` those of the dialogue, ``termination`` the
last (RFC 5321, sections 3.1 and 3.8). ``sender`` sends replies, ``read_buffer`` reads,
``reception`` has what all connections share, ``limits`` the bounds of connections and times;
``proxy_header`` and ``tls`` are for the PROXY protocol and STARTTLS.
"""

"""One host, and the demo: starts the programs as an operator would; imports neither of them.

Rooms; lint contracts hold their order:

    cli           `smtpfeeds up` and `smtpfeeds demo`
    demo          clients, both feeds, and the check of what came out
    single_host   the folder, a private PostgreSQL, the programs as children
    simulation    SMTP clients, their ledger, and the published files read back

The way of an event on one host: client > sensor > spool > aggregator > PostgreSQL > feeds; the
demo compares the feeds with the ledger of what its clients did.
"""

"""The single host and the demo; they start the programs by command line and import neither.

The packages; the import linter checks their order:

    cli           `smtpfeeds up` and `smtpfeeds demo`
    demo          runs simulated clients, shows both feeds and checks them
    single_host   the folder, a private PostgreSQL, the programs as child processes
    simulation    SMTP clients, their ledger, and readers of the published files

On a single host an event goes from client to sensor, spool, aggregator, PostgreSQL and feeds. The
demo compares the feeds with the ledger of its clients.
"""

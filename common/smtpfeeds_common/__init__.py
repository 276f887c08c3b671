"""What crosses the wire, and what more than one program needs.

Each thing is here once; a lint contract holds the order, from the command down to the errors:

    cli, command_end, config_option     the command `smtpfeeds`, how it ends, options of all parts
    extras, shipped, shipped_command    what installs a part; files that wheels carry
    spool/                              events on disk until they are delivered (sqlite3 lives here)
    supervision, backoff, signals       child processes; waits between attempts; stop and reload
    systemd, users, logs                ready and alive; whom a program becomes; what it logs
    settings, host_port, service_address    how a program is configured, and where others are
    wire, feeds, topology               the message, the two feeds, the names at the broker
    behaviours, history                 what a client did, by bit; bits that age
    addresses, times, clock             one spelling of an address and a time; a doubtful clock
    errors                              how everything fails, in one tree

The way of an event: a sensor folds it into its spool and seals batches there; a message (wire)
brings them to the aggregator, which on one host takes them from the spool itself.
"""

from typing import Final

__version__: Final = "0.2.0"

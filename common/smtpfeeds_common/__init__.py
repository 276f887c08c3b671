"""Code that more than one program uses, and the message that they exchange.

The import linter checks the order of the modules, from the command down to the errors:

    cli, command_end, config_option     the command `smtpfeeds`, its exit codes, shared options
    extras, shipped, shipped_command    how to install an extra; files in the wheel
    spool/                              events on disk until they are delivered (SQLite)
    supervision, backoff, signals       child processes; waits between attempts; stop and reload
    systemd, users, logs                sd_notify; the user that a program runs as; logging
    settings, host_port, service_address    configuration, and addresses of other services
    wire, feeds, topology               the message, the two feeds, the names in RabbitMQ
    behaviours, history                 what a client did, by bit; how these bits age
    addresses, times, clock             one text form of an address and a time; the host's clocks
    errors                              all errors, in one tree

A sensor folds events into its spool and seals batches there. A message (``wire``) carries a batch
to the aggregator; on a single host the aggregator reads the spool itself.
"""

from typing import Final

__version__: Final = "0.2.0"

"""What crosses the wire, and what more than one program needs.

wire, feeds, topology    the message, the two feeds, the names at the broker
behaviours, history      what a client did, by bit; bits that age
spool/                   events on disk until they are delivered (sqlite3 lives here)
addresses, times, clock  one spelling of an address and of a time; a doubtful clock
settings, logs, errors   how a program is configured, what it logs, how it fails
cli, extras, shipped     the command, what installs a part, files that wheels carry
backoff, supervisor, systemd, signals, host_port …    each once, for all programs
"""

from typing import Final

__version__: Final = "0.2.0"

"""`smtpfeeds sensor`: modules of related commands.

group        the group itself, the option --config, how times are shown
run          run, check-config
spools       status, replay
left_behind  left-behind list, deliver, convert, drop
"""

from . import left_behind, run, spools
from .group import sensor

__all__ = ["left_behind", "run", "sensor", "spools"]

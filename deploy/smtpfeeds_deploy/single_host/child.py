"""Runs one of the programs so that it ends with the process that started it.

``python -m smtpfeeds_deploy.single_host.child PARENT COMMAND…`` runs ``smtpfeeds COMMAND…``, and
the kernel kills it when the process PARENT ends. A killed sensor or aggregator loses nothing:
events that were answered are in the spool, and batches that were applied are in the database.
"""

import os
import sys
from collections.abc import Sequence

from smtpfeeds_common.cli import main
from smtpfeeds_common.parent_process import end_with_parent


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs ``smtpfeeds ARGUMENTS…`` as a child of this process."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *arguments]


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    main(sys.argv[2:], prog_name="smtpfeeds")

"""Run IntelMQ's own Dataplane parser over files, in IntelMQ's environment.

    intelmq_parser.py ANSWER FILE...

Writes one JSON array for each file to ANSWER: the bot's events, in order.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

# pyright: reportMissingImports=false
# IntelMQ is in an environment of its own.
from intelmq.bots.parsers.dataplane.parser import DataplaneParserBot
from intelmq.lib.bot import BotLibSettings
from intelmq.lib.cache import Cache

# The bot counts its messages in a Redis on this host: there is none, and it would try for long.
Cache.set = lambda *_args, **_kwargs: None


def events_of(text: bytes) -> list[dict[str, Any]]:
    """Return the bot's events of a text file, in order; end this process if it refuses a line."""
    bot = DataplaneParserBot("dataplane", settings=BotLibSettings)
    raw = base64.b64encode(text).decode()
    queues = bot.process_message({"raw": raw, "feed.name": "smtpfeeds"})
    if queues.get("error"):
        sys.exit(f"the parser refuses {len(queues['error'])} lines")
    return [dict(event) for event in queues["output"]]


def main() -> None:
    answer, *files = map(Path, sys.argv[1:])
    events = [events_of(file.read_bytes()) for file in files]
    answer.write_text(json.dumps(events, default=str))


if __name__ == "__main__":
    main()

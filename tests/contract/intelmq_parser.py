"""Run IntelMQ's own Dataplane parser over files, in IntelMQ's environment.

    intelmq_parser.py ANSWER FILE...

Writes one JSON array for each file to ANSWER: the bot's events, in order.
"""

import base64
import json
import sys
from pathlib import Path

# pyright: reportMissingImports=false
# IntelMQ is in an environment of its own.
from intelmq.bots.parsers.dataplane.parser import DataplaneParserBot
from intelmq.lib.bot import BotLibSettings
from intelmq.lib.cache import Cache


def main() -> None:
    # The bot counts its messages in a Redis on this host: there is none, and it would try for long.
    Cache.set = lambda *_args, **_kwargs: None
    answer, *files = map(Path, sys.argv[1:])
    events = []
    for file in files:
        bot = DataplaneParserBot("dataplane", settings=BotLibSettings)
        raw = base64.b64encode(file.read_bytes()).decode()
        queues = bot.process_message({"raw": raw, "feed.name": "smtpfeeds"})
        if queues.get("error"):
            sys.exit(f"{file}: the parser refuses {len(queues['error'])} lines")
        events.append([dict(event) for event in queues["output"]])
    answer.write_text(json.dumps(events, default=str))


main()

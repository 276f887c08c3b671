"""The two feeds: their names, and the event that each lists."""

from typing import Final, Literal, NamedTuple

FeedName = Literal["smtpgreet", "smtpdata"]


class Feed(NamedTuple):
    """A public feed: its name, the event that it lists, and a line of description."""

    name: FeedName
    event: str
    description: str


GREET: Final = Feed(
    "smtpgreet", "greet", "addresses that said HELO or EHLO to an SMTP sensor in the past 7 days"
)
DATA: Final = Feed(
    "smtpdata", "data", "addresses that went on to DATA at an SMTP sensor in the past 7 days"
)

#: In the order of every list; a data event implies a greet.
FEEDS: Final = (GREET, DATA)
FEED_BY_NAME: Final[dict[str, Feed]] = {feed.name: feed for feed in FEEDS}
FEED_NAMES: Final = tuple(FEED_BY_NAME)

#: An entry leaves the published feeds when its address has not been seen for this long.
WINDOW_DAYS: Final = 7

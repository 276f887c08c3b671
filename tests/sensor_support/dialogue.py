"""A dialogue for tests, which receives octets without a network."""

from typing import Any

from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.smtp.dialogue import Dialogue, Rules
from smtpfeeds_sensor.smtp.names import SensorNames
from smtpfeeds_sensor.smtp.personas import STYLES, Persona, make_persona

PERSONA = make_persona(
    STYLES["plain"], hostname="mx.example", policy_url="https://example.org/why", offer_tls=True
)
#: The address that a client connected to, and the banner's name.
NAMES = SensorNames(bytes((192, 0, 2, 25)), "mx.example")
GREETED = b"EHLO c.example.org\r\n"
ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"


class Talk:
    """A dialogue after its banner."""

    def __init__(
        self, *, persona: Persona = PERSONA, names: SensorNames = NAMES, **rules: Any
    ) -> None:
        self.count = new_counters()
        self.dialogue = Dialogue(persona, Rules(**rules), self.count, names)

    def say(self, octets: bytes) -> list[int]:
        """Receive octets and return the codes of the replies."""
        return codes(self.dialogue.receive(octets))

    def say_in_turn(self, octets: bytes) -> list[int]:
        """Receive line by line, as from a client that waits for each reply; start TLS if asked."""
        replies = []
        for line in octets.splitlines(keepends=True):
            replies += self.say(line)
            if self.dialogue.wants_tls:
                self.dialogue.tls_started()
        return replies

    @property
    def events(self) -> int:
        return self.dialogue.heard


def codes(replies: bytes) -> list[int]:
    """Return the code of each reply."""
    lines = replies.decode("ascii").split("\r\n")[:-1]
    return [int(line[:3]) for line in lines if line[3] == " "]

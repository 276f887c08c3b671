"""The traps of ``twisted.mail.smtp`` and of listening, each as something this sensor does right.

Those that need real sockets are in ``tests/integration/test_sensor_traps.py``.
"""

import time

from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.smtp.dialogue import GREET, OPEN, Dialogue, Rules
from smtpfeeds_sensor.smtp.names import SensorNames
from smtpfeeds_sensor.smtp.personas import STYLES, make_persona

PERSONA = make_persona(STYLES["plain"], hostname="mx.example")
NAMES = SensorNames(bytes((192, 0, 2, 25)), "mx.example")


def begun(**rules: object) -> Dialogue:
    return Dialogue(PERSONA, Rules(**rules), new_counters(), NAMES)  # type: ignore[arg-type]


def test_input_without_a_line_end_is_not_held() -> None:
    """Twisted's class kept 8 MB of it and took 12.6 s of CPU."""
    dialogue = begun()
    began = time.process_time()
    for _ in range(2000):
        dialogue.receive(b"A" * 4096)
        assert dialogue.held_bytes < 2048
    assert time.process_time() - began < 1
    assert dialogue.closing != OPEN


def test_endless_line_of_single_octets_is_bounded() -> None:
    dialogue = begun()
    for _ in range(70_000):
        dialogue.receive(b"A")
    assert dialogue.held_bytes < 2048
    assert dialogue.closing != OPEN


def test_long_line_of_content_does_not_return_to_commands() -> None:
    """Twisted's class parsed the rest as commands, which forged an EHLO."""
    dialogue = begun(drain=True)
    dialogue.receive(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nHELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\n")
    dialogue.take()
    assert dialogue.receive(b"DATA\r\n").startswith(b"354")
    dialogue.take()
    assert dialogue.receive(b"y" * 50_000 + b"\r\nEHLO forged\r\nQUIT\r\n") == b""
    assert dialogue.receive(b"\r\n.\r\n").startswith(b"554")
    assert dialogue.heard == 0


def test_verb_that_is_not_ascii_is_answered() -> None:
    dialogue = begun()
    assert dialogue.receive("ΕΗΛΟ x\r\n".encode()).startswith(b"221")
    assert begun().receive("Eé x\r\n".encode()).startswith(b"500")


def test_auth_alone_is_answered() -> None:
    assert begun().receive(b"AUTH\r\n").startswith(b"502")


def test_bare_lf_is_answered() -> None:
    dialogue = begun()
    assert dialogue.receive(b"EHLO x\n").startswith(b"250")
    assert dialogue.heard == GREET


def test_command_behind_starttls_is_not_processed() -> None:
    dialogue = Dialogue(PERSONA, Rules(offer_tls=True), new_counters(), NAMES)
    assert dialogue.receive(b"STARTTLS\r\nEHLO injected\r\n").count(b"\r\n") == 1
    assert dialogue.heard == 0


def test_noop_vrfy_and_help_are_known() -> None:
    replies = begun().receive(b"NOOP\r\nVRFY a\r\nHELP\r\n")
    assert [line[:3] for line in replies.split(b"\r\n")[:-1]] == [b"250", b"252", b"214"]


def test_content_needs_no_header_and_no_delivery() -> None:
    """Without a delivery object Twisted's class raised in its default Received header."""
    dialogue = begun(drain=True)
    octets = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\nno header\r\n.\r\n"
    assert dialogue.receive(octets).endswith(b"554 5.7.1 This host takes no mail\r\n")

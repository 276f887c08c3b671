"""The command line of `smtpfeeds up` refuses wrong options before it starts anything."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpfeeds_deploy.cli import up


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1", "lacks a port"),
        (":25", "lacks a host"),
        ("127.0.0.1:65536", "lacks a port"),
        ("::1:25", "in brackets, [::1]:25"),  # the end of the address is ambiguous
        ("300.0.0.1:25", "'300.0.0.1'"),
        ("localhost:25", "'localhost'"),  # a name may have several addresses
        ("[]:25", "lacks a host"),
    ],
)
def test_address_that_cannot_be_listened_on_is_wrong_use(
    tmp_path: Path, address: str, message: str
) -> None:
    """It exits with 2 at once, before it starts PostgreSQL."""
    folder = tmp_path / "site"
    done = CliRunner().invoke(up, ["--dir", str(folder), "--smtp", address])
    assert done.exit_code == 2
    assert message in done.output
    assert not folder.exists()

"""The tutorial's commands work; the test changes only the port."""

from __future__ import annotations

import re
from pathlib import Path

from acceptance.harness import clean_environment, wait_for
from acceptance.how_to import Place, blocks
from servers.processes import free_port

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "tutorial.md"


def test_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(CHECKOUT / ".venv")
    here = Place(tmp_path, tmp_path / "up.log", clean_environment())
    port = str(free_port())
    printed: list[str] = []
    try:
        for block in blocks(PAGE):
            assert "2525" in block.text or "--dir site" in block.text
            ours = block._replace(text=block.text.replace("2525", port))
            if block.how == "runs":
                here.keep_running(ours)
                wait_for(lambda: here.has_logged("ready: SMTP on 127.0.0.1:"), "it is ready")
            else:
                printed.append(here.run(ours))
    finally:
        here.stop()
    greeted, asked, refused, listed = printed
    assert greeted.startswith("220 ")
    assert "smtpgreet" in asked
    assert re.search(r"^smtpdata +-$", asked, re.MULTILINE), "nothing was seen in smtpdata"
    assert "\n554 5.7.1 " in refused
    assert "smtpdata" in refused.partition("\n221 ")[2]
    assert "local" in listed

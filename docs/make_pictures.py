"""Make the pictures of the README from the demo's data: the page and a terminal, light and dark.

    python docs/make_pictures.py        writes docs/pictures/

Needs chromium. The demo runs in a temporary folder and ends by itself.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI, TerminalTheme
from rich.text import Text

FOLDER: Final = Path(__file__).parent / "pictures"
_WIDTH: Final = 1200
_HEIGHT: Final = 1450
_COLUMNS: Final = 100
#: A time to come, in seconds since 1970-01-01.
_LATER_S: Final = 32_503_680_000
_BROWSER: Final = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--hide-scrollbars", "--virtual-time-budget=5000"),
    f"--window-size={_WIDTH},{_HEIGHT}",
)
#: Chromium's setting of the colour scheme that a page is asked to use.
_SCHEMES: Final = {"light": "1", "dark": "0"}
_THEMES: Final[dict[str, TerminalTheme]] = {"light": DEFAULT_TERMINAL_THEME, "dark": MONOKAI}


def page_picture(page: Path, scheme: str, target: Path, profile: Path) -> None:
    """Take a picture of the page in a browser."""
    subprocess.run(
        [
            *_BROWSER,
            f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}",
            f"--user-data-dir={profile}",
            f"--screenshot={target}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
    )


def terminal_picture(output: str, scheme: str, target: Path) -> None:
    """Draw a command's output as a terminal shows it."""
    console = Console(width=_COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(output))
    svg = console.export_svg(title="smtpfeeds demo", theme=_THEMES[scheme])
    # A picture asks nobody for a font.
    target.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")


def main() -> int:
    """Run the demo and write the pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="smtpfeeds-pictures-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        demo = subprocess.run(
            [sys.executable, "-m", "smtpfeeds_common.cli", "demo", "--dir", str(folder / "demo")],
            check=True,
            capture_output=True,
            text=True,
        )
        shown = demo.stdout[demo.stdout.index("The feeds, by origin") :]
        shown = shown.split("The page of the feeds")[0].rstrip()
        page = folder / "demo" / "feeds" / "current" / "index.html"
        # The demo publishes each second and has ended: the picture shows a fresh page.
        fresh = re.sub(r'data-expires="\d+"', f'data-expires="{_LATER_S}"', page.read_text("utf-8"))
        page.write_text(fresh, "utf-8")
        for scheme in _SCHEMES:
            page_picture(page, scheme, FOLDER / f"page-{scheme}.png", folder / scheme)
            terminal_picture(f"$ smtpfeeds demo\n{shown}", scheme, FOLDER / f"demo-{scheme}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Draw docs/demo.svg: what `mailbound demo` shows. Run it as `.venv/bin/python docs/picture.py`."""  # noqa: INP001 - a script

from __future__ import annotations

import os
import pty
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

_COLUMNS = 102
_PICTURE = Path(__file__).with_name("demo.svg")
_FIRST = "Bounces by reason and by domain"
_AFTER = "That took"

# Rich's own picture loads its font from the network; this one takes what the reader's machine has.
_FORMAT = """\
<svg viewBox="0 0 {terminal_width} {terminal_height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: {char_height}px; \
line-height: {line_height}px; }}
{styles}
</style>
<defs>{lines}</defs>
<rect width="100%" height="100%" rx="8" fill="#191919"/>
{backgrounds}
<g class="{unique_id}-matrix" transform="translate(24 16) scale(0.965)">{matrix}</g>
</svg>
"""


def main() -> None:
    """Run the demo on a terminal of its own, and draw its reports."""
    shown = _demo()
    start = shown.index(_FIRST)
    part = shown[shown.rindex("\n", 0, start) + 1 : shown.index(_AFTER, start)]
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        for line in part.strip().splitlines():
            console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis", crop=True)
        svg = console.export_svg(title="", theme=DIMMED_MONOKAI, code_format=_FORMAT, unique_id="demo")
    _PICTURE.write_text(
        re.sub(r' clip-path="[^"]*"', "", re.sub(r"<defs>.*?</defs>", "", svg, flags=re.DOTALL))
    )


def _demo() -> str:
    """Return all that the demo writes on a terminal."""
    os.environ |= {"COLUMNS": str(_COLUMNS), "LINES": "50", "TERM": "xterm-256color"}
    written = bytearray()

    def keep(descriptor: int) -> bytes:
        octets = os.read(descriptor, 65_536)
        written.extend(octets)
        return octets

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mailbound.cli", "demo", "--folder", f"{folder}/demo"]
        if pty.spawn(command, keep):
            raise SystemExit("the demo failed; see above")
    return written.decode(errors="replace").replace("\r\n", "\n")


if __name__ == "__main__":
    main()

"""A mail with what was used of it marked: by letters beside its lines, and by colours where there are any.

Lines that say nothing are folded, so that a mail of any size fits a screen or two.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mailbound.cli import bars, sheets, terminal
from mailbound.reading.layout import Line, Zone
from mailbound.reading.marks import Mark, Marked, Span

if TYPE_CHECKING:
    from rich.text import Text

LEGEND = {
    Mark.KIND: ("K", "kind", "cyan"),
    Mark.RECIPIENT: ("R", "recipient", "magenta"),
    Mark.STATUS: ("S", "status", "bold red"),
    Mark.DIAGNOSTIC: ("D", "diagnostic", "yellow"),
    Mark.TOKEN: ("T", "token", "green"),
}

AROUND = 1
"""Lines that are shown before and after one with a mark."""

FOLDED = 4
"""Fewer quiet lines are shown: a fold in their place would be no shorter."""

OPENING = 8
"""Lines of the text that are shown at its beginning if nothing in it is marked."""

SHOWN = 200
"""Lines that are shown at most."""

_LANDMARKS = ("from:", "to:", "subject:", "date:")


def show(marked: Marked) -> None:
    """Print the mail, and before it what its marks mean."""
    spans: dict[int, list[Span]] = {}
    for span in marked.spans:
        spans.setdefault(span.line, []).append(span)
    _legend({span.mark for span in marked.spans})
    page = _Page(marked.lines, spans)
    left = SHOWN
    for is_shown, group in itertools.groupby(range(len(marked.lines)), _visible(marked).__contains__):
        indexes = list(group)
        near = indexes[:left] if is_shown else []
        for index in near:
            page.line(index)
        page.fold(indexes[len(near) :])
        left -= len(near)


def _legend(marks: AbstractSet[Mark]) -> None:
    told = [(letter, meaning, style) for mark, (letter, meaning, style) in LEGEND.items() if mark in marks]
    if not told:
        sheets.note("Nothing in it is marked.")
    elif sys.stdout.isatty():
        from rich.text import Text

        parts = [part for letter, meaning, style in told for part in ((f"{letter} {meaning}", style), "  ")]
        bars.console().print(Text.assemble(*parts[:-1]))
    else:
        terminal.say("  ".join(f"{letter} {meaning}" for letter, meaning, _ in told))


def _visible(marked: Marked) -> set[int]:
    """Return which lines are shown: those with a mark, what is around them, and what gives an orientation."""
    told = {span.line for span in marked.spans}
    found = {index + step for index in told for step in range(-AROUND, AROUND + 1)}
    found |= {index for index, line in enumerate(marked.lines) if _is_landmark(line)}
    if not any(marked.lines[index].zone is Zone.BODY for index in told):
        bodies = (index for index, line in enumerate(marked.lines) if line.zone is Zone.BODY and line.text)
        opening = next(bodies, 0)
        found |= set(range(opening, opening + OPENING))
    found &= set(range(len(marked.lines)))
    at = 0
    for index in [*sorted(found), len(marked.lines)]:
        if index - at < FOLDED:
            found |= set(range(at, index))
        at = index + 1
    return found


def _is_landmark(line: Line) -> bool:
    if line.zone is Zone.HEADER:
        return line.text.lower().startswith(_LANDMARKS)
    return line.zone is Zone.NOTE or (
        line.zone is Zone.FENCE and line.text.lower().startswith("content-type:")
    )


class _Page:
    """Prints the lines of one mail with their numbers and letters."""

    def __init__(self, lines: Sequence[Line], spans: Mapping[int, Sequence[Span]]) -> None:
        self._lines = lines
        self._spans = spans
        self._number = len(str(lines[-1].last)) if lines else 1
        self._letters = max((len(_letters(each)) for each in spans.values()), default=1)
        self._last = 0  # the number that was printed last

    def line(self, index: int) -> None:
        line = self._lines[index]
        spans = self._spans.get(index, ())
        number = "" if line.first == self._last else str(line.first)
        self._last = line.first
        number, letters = f"{number:>{self._number}} ", f"{_letters(spans):<{self._letters}}"
        if not sys.stdout.isatty():
            print(f"{number}{letters} | {_safe(line.text)}".rstrip())
            return
        from rich.text import Text

        console = bars.console()
        room = max(console.width - len(number) - len(letters) - 3, _NARROWEST)
        for piece in _drawn(line, spans).wrap(console, room) or [Text()]:
            gutter = Text.assemble((number, "bright_black"), (letters, "bold"), (" │ ", "bright_black"))
            console.print(gutter + piece, soft_wrap=True)
            number, letters = " " * len(number), " " * len(letters)

    def fold(self, indexes: Sequence[int]) -> None:
        """Print how much is not shown; nothing if that is nothing."""
        if not indexes:
            return
        marks = sum(len(self._spans.get(index, ())) for index in indexes)
        more = f", {terminal.counted(marks, 'mark')}" if marks else ""
        told = f"… {terminal.counted(len(indexes), 'line')}{more} …"
        bars.line(f"{'':>{self._number + self._letters + 4}}{told}", "bright_black")


_NARROWEST = 20


def _letters(spans: Sequence[Span]) -> str:
    marks = {span.mark for span in spans}
    return "".join(letter for mark, (letter, _, _) in LEGEND.items() if mark in marks)


def _drawn(line: Line, spans: Sequence[Span]) -> Text:
    """Return a line in colours; where marks overlap, the one that says most is seen."""
    from rich.text import Text

    drawn = Text(style="bright_black" if line.zone in {Zone.FENCE, Zone.NOTE} else "")
    edges = sorted({0, len(line.text), *(edge for span in spans for edge in (span.begin, span.end))})
    for begin, end in itertools.pairwise(edges):
        over = [span.mark for span in spans if span.begin <= begin and end <= span.end]
        style = LEGEND[max(over, key=_ORDER.index)][2] if over else ""
        drawn.append(_safe(line.text[begin:end]), style)
    return drawn


_ORDER = (Mark.KIND, Mark.DIAGNOSTIC, Mark.RECIPIENT, Mark.STATUS, Mark.TOKEN)


def _safe(text: str) -> str:
    return terminal.escape(text.replace("\t", "    "))

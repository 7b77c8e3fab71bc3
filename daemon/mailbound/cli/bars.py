"""Tables with bars: coloured for a person who looks on, plain and aligned for a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mailbound.cli import terminal

WIDTH = 100
"""No table is wider, so that the eye finds its way from the first column to the last."""

_NARROWEST, _WIDEST = 6, 24
_NAME = 32


@dataclass(frozen=True, slots=True)
class Bar:
    """A cell that is drawn as a bar, from 0 to 1."""

    share: float
    style: str = "cyan"


@dataclass(frozen=True, slots=True)
class Styled:
    """A cell that is coloured where there are colours."""

    value: Any
    style: str


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    total: Sequence[Any] = (),
    title: str = "",
    spare: Sequence[str] = (),
    long: str | Sequence[str] = (),
) -> None:
    """Print a table whose cells may be bars, with a line for the total below it.

    A terminal that is too narrow for it is spared the columns in `spare`, as many of them as it must be. What strangers
    chose stands in the columns `long`, else in the first, and is folded where there is no room for it.
    """
    lines = [list(row) for row in (*rows, total) if row]
    if not sys.stdout.isatty():
        terminal.table(columns, [[_plain(value) for value in line] for line in lines], title=title)
        return
    names = list(columns)
    strange = ((long,) if isinstance(long, str) else long) or names[:1]
    for name in spare:
        if _width(names, lines, strange) + _NARROWEST <= _columns():
            break
        index = names.index(name)
        for line in (names, *lines):
            del line[index]
    _draw(names, lines, title, strange, totals=1 if total else 0)


def percent(share: float | None) -> str:
    """Return a share as a person reads it: `12.34%`; nothing where nobody knows it."""
    return "" if share is None else f"{share:.2%}"


def line(text: str, style: str = "") -> None:
    """Print one line, escaped; on a terminal it is coloured and folded at the width of a table."""
    if not sys.stdout.isatty():
        terminal.say(text)
        return
    from rich.text import Text

    console().print(Text(terminal.escape(text), style))


def _plain(value: Any) -> Any:
    if isinstance(value, Bar):
        return terminal.bar(value.share, width=_WIDEST)
    return value.value if isinstance(value, Styled) else value


def _draw(
    columns: Sequence[str], lines: Sequence[Sequence[Any]], title: str, long: Collection[str], *, totals: int
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=Text(terminal.escape(title), "bold") if title else None,
        title_justify="left",
    )
    width = min(max(_columns() - _width(columns, lines, long), _NARROWEST), _WIDEST)
    for index, name in enumerate(columns):
        values = [line[index] for line in lines]
        right = all(_is_number(_plain(value)) for value in values[: len(values) - totals])
        # Only a name that a stranger chose may be longer than there is room.
        drawn.add_column(
            Text(name),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=name not in long and index < len(columns) - 1,
        )
    for number, line in enumerate(lines):
        last = len(lines) - totals
        drawn.add_row(
            *(_text(value, width) for value in line),
            style="bold" if number >= last else None,
            end_section=number == last - 1 and totals > 0,
        )
    console().print(drawn)


def _text(value: Any, width: int) -> Any:
    from rich.text import Text

    if isinstance(value, Bar):
        return Text(terminal.bar(value.share, width=width), value.style)
    if isinstance(value, Styled):
        return Text(terminal.cell(value.value), value.style)
    return Text(terminal.cell(value))


def _width(columns: Sequence[str], lines: Sequence[Sequence[Any]], long: Collection[str]) -> int:
    """Return how wide a table is without its bar. A column that is `long` counts as long as a name; two, less."""
    used = 2 * len(columns)
    room = 2 * _NAME // (1 + len(long))
    for index, name in enumerate(columns):
        values = [line[index] for line in lines]
        if not any(isinstance(value, Bar) for value in values):
            widest = max(len(name), *(len(terminal.cell(_plain(value))) for value in values))
            used += min(widest, room) if name in long else widest
    return used


def _is_number(value: Any) -> bool:
    text = terminal.cell(value)
    return not text or text.replace(",", "").replace(".", "").removesuffix("%").isdecimal()


def _columns() -> int:
    return min(shutil.get_terminal_size().columns, WIDTH)


def console() -> Any:
    """Return the console of standard output, no wider than a table, which takes every text as it is."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=_columns())

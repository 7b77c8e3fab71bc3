"""What every command shares: the database of the configuration, tables, JSON, progress and safe text.

What is printed here was often written by strangers (names, subjects, replies), so control characters are
escaped before they reach a terminal. Tables are drawn where a person looks on, and plain text in a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from mailbound.errors import InputError

if TYPE_CHECKING:
    from mailbound.database import engine

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
"""The option `--json` of a command that lists something."""


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, amount: int, *, total: int | None = None) -> None:
        """Move it by `amount`; `total` says anew how much there is."""


# C0 and C1 controls drive terminals; line separators and bidirectional overrides disguise text.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+ ?%?")
_EIGHTHS = " ▏▎▍▌▋▊▉"


@contextlib.contextmanager
def open_database(context: typer.Context) -> Iterator[engine.Database]:
    """Give the database of the configuration, its schema brought up to date and its stores numbered.

    Raises ConfigError if the configuration has faults, DatabaseError if the database cannot be reached.
    """
    from mailbound import config
    from mailbound.database import engine, schema, stores

    settings = config.load(context.obj)
    database = engine.Database(settings.database.connect_url())
    try:
        schema.upgrade(database)
        with database.begin() as connection:
            stores.keep(connection, settings.stores)
        yield database
    finally:
        database.close()


def who() -> str:
    """Return who gives the command, for the ledger: the user's name in the operating system."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name[:64]  # not from the environment, where anybody can be anybody
    except KeyError:  # as in a container
        return f"uid {number}"


def escape(text: str) -> str:
    r"""Return `text` with control characters written out, such as `\x1b`; it then takes one line."""
    return _UNSAFE.sub(lambda match: _SHORT.get(match[0]) or _written(match[0]), text)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def say(*lines: str) -> None:
    """Print lines for a person on standard output, escaped."""
    for line in lines:
        print(escape(line))


def warn(line: str) -> None:
    """Print a line on standard error, escaped."""
    print(escape(line), file=sys.stderr)


def confirm(question: str) -> None:
    """Ask before what cannot be taken back. Raises InputError unless the answer is yes."""
    if not sys.stdin.isatty():
        raise InputError("nobody is there to confirm this; say --yes")
    if not typer.confirm(escape(question), err=True):
        raise InputError("nothing was changed")


def print_json(value: Any) -> None:
    """Print a value as JSON: moments in ISO 8601, mappings and sequences (rows, too) as they nest."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_plain)
    # Line breaks outside of strings are its own; anything else unsafe can only stand within a string.
    print(_UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "_mapping"):  # a row of SQLAlchemy
        return dict(value._mapping)  # noqa: SLF001 - its public name, in spite of the underscore
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return str(value)


def cell(value: Any) -> str:
    """Return a value as a person reads it, escaped: moments in UTC to the second, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    return escape(str(value))


def pairs(values: Mapping[str, Any]) -> str:
    """Return attributes on one line, as a condition would write them: `country=DE, vip=true`."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }
    return ", ".join(f"{name}={text}" for name, text in texts.items())


def number(count: int) -> str:
    """Return a count with its thousands apart: `1,234,567`."""
    return f"{count:,}"


def counted(count: int, noun: str, nouns: str = "") -> str:
    """Return a count with its noun: `1 row`, `1,234 rows`; `nouns` is a plural that needs more than an s."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def bar(share: float, *, width: int = 20) -> str:
    """Return a bar for a share from 0 to 1, `width` characters if it is 1; of `#` where blocks cannot be."""
    share = min(max(share, 0.0), 1.0)
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return "#" * round(share * width)
    full, eighths = divmod(round(share * width * 8), 8)
    return "█" * full + (_EIGHTHS[eighths] if eighths else "")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """Print a table; columns of numbers stand to the right. Without rows it is title and head only."""
    cells = [[cell(value) for value in row] for row in rows]
    right = [_numeric([row[index] for row in cells]) for index in range(len(columns))]
    if sys.stdout.isatty():
        _draw(columns, cells, right, title)
    else:
        _align(columns, cells, right, title)


def facts(known: Sequence[tuple[str, Any]]) -> None:
    """Print what is known about one thing, one fact to a line; a fact without a value is left out."""
    shown = [(label, cell(value)) for label, value in known]
    width = max((len(label) for label, text in shown if text), default=0)
    for label, text in shown:
        if text:
            print(f"{label:<{width}}  {text}")


def _numeric(texts: Sequence[str]) -> bool:
    written = [text for text in texts if text]
    return bool(written) and all(_NUMBER.fullmatch(text) for text in written)


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title=Text(escape(title)) if title else None, title_justify="left")
    for name, is_right in zip(columns, right, strict=True):
        drawn.add_column(Text(name), justify="right" if is_right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(text) for text in row))  # Text is taken as it is, no markup
    Console(highlight=False).print(drawn)


def _align(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool], title: str) -> None:
    if title:
        print(escape(title))
    widths = [max(len(row[index]) for row in (columns, *cells)) for index in range(len(columns))]
    for row in (columns, *cells):
        texts = (
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        )
        print("  ".join(texts).rstrip())


@contextlib.contextmanager
def progress(what: str, total: int | None, *, octets: bool = False) -> Iterator[Advance]:
    """Give a function that moves a progress bar on by so much; without a terminal it does nothing.

    The bar stands on standard error, so that the output may go elsewhere. `total` is None if nobody knows.
    """
    if not sys.stderr.isatty():
        yield lambda amount, total=None: None  # noqa: ARG005 - its callers name them
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
    )

    count = DownloadColumn() if octets else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count)
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(escape(what), total=total)
        yield lambda amount, total=total: shown.update(task, advance=amount, total=total)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal, while the block runs, what it waits for."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(escape(what))):
        yield

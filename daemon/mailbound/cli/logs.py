"""`mailbound logs`: the structured log, followed and filtered, from the journal, a file or standard input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from mailbound.cli import log_lines, since, terminal
from mailbound.cli.log_lines import Filter, Record
from mailbound.errors import InputError

STDIN = Path("-")

_PAUSE_SECONDS = 0.25
_TAIL_LINES = 10
_TAIL_OCTETS = 65_536

Pause = Callable[[], bool]


def logs(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="JSON lines; `-`: standard input [default: the journal of the service]."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is logged from now on.")
    ] = False,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", metavar="GLOB", help="Only these events: 'bounce.*'. Repeatable."),
    ] = None,
    activity: Annotated[
        str | None, typer.Option("--activity", metavar="NAME|ID", help="Only of this activity.")
    ] = None,
    level: Annotated[
        log_lines.Level | None, typer.Option("--level", help="Only what is at least so important.")
    ] = None,
    since_: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="From then on: 90s, 30m, 12h, 7d or a date (UTC)."),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="KEY=GLOB", help="Only where a field is so. Repeatable."),
    ] = None,
    unit: Annotated[str, typer.Option("--unit", help="The service in the journal.")] = "mailbound",
    as_json: terminal.Json = False,
) -> None:
    """Show the log, or follow it.

    Filters are combined: a record must pass all of them. Following ends with Ctrl-C. Times are UTC.
    """
    start = since.moment(since_, now=datetime.now(UTC)) if since_ else None
    wanted = Filter(
        events=tuple(event or ()),
        activity=activity,
        level=level,
        since=start,
        fields=tuple(_field(text) for text in field or ()),
    )
    try:
        _show(_records(file, follow=follow, start=start, unit=unit), wanted, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _field(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InputError(f"--field {text!r} is not of the form key=value")
    return key, value


def _records(file: Path | None, *, follow: bool, start: datetime | None, unit: str) -> Iterator[Record]:
    if file is None:
        return (log_lines.of_journal(line) for line in _journal(unit, follow=follow, start=start))
    if file == STDIN:
        return (log_lines.of_line(line) for line in sys.stdin.buffer)
    lines = read(file, tail=follow and start is None, pause=_wait if follow else None)
    return (log_lines.of_line(line) for line in lines)


def _show(records: Iterable[Record], wanted: Filter, *, as_json: bool) -> None:
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for record in records:
        if not wanted.passes(record):
            continue
        text = log_lines.as_json(record) if as_json else log_lines.as_text(record, colours=colours)
        # Whoever follows through a pipe wants each line when it is there.
        print(text, flush=True)


def read(path: Path, *, tail: bool = False, pause: Pause | None = None) -> Iterator[bytes]:
    """Yield the lines of a file, from its last ten on if it is the `tail` that is wanted.

    With `pause` it goes on for ever: it is called at the end of the file, and nothing more is read once it
    returns False. A file that was replaced (rotation) is read to its end, then the new one from its start;
    one that was truncated is read anew. Raises InputError if there is no such file.
    """
    source = _open(path)
    rest = b""
    try:
        source.seek(_tail(source) if tail else 0)
        while True:
            # Before the last read of the old file, so that nothing is missed that is written meanwhile.
            successor = _successor(path, source) if pause else None
            if _is_truncated(source):
                rest = yield from _end(rest)
                source.seek(0)
            while chunk := source.readline():
                rest += chunk
                if rest.endswith(b"\n"):
                    rest = yield from _end(rest)
            if successor is not None:
                rest = yield from _end(rest)
                source.close()
                source = successor
            elif pause is None or not pause():
                break
        yield from _end(rest)
    finally:
        source.close()


def _end(rest: bytes) -> Generator[bytes, None, bytes]:
    """Yield what is left of a line, if anything is; return what is left then: nothing."""
    if rest:
        yield rest
    return b""


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _successor(path: Path, source: BinaryIO) -> BinaryIO | None:
    """Return the file that took the place of an open one, or None while there is none."""
    try:
        if os.path.samestat(path.stat(), os.fstat(source.fileno())):
            return None
        return path.open("rb")
    except FileNotFoundError:  # moved away, and the new one is not there yet
        return None


def _is_truncated(source: BinaryIO) -> bool:
    return os.fstat(source.fileno()).st_size < source.tell()


def _tail(source: BinaryIO) -> int:
    """Return where the last lines of a file begin."""
    size = os.fstat(source.fileno()).st_size
    begin = max(0, size - _TAIL_OCTETS)
    source.seek(begin)
    lines = source.read(size - begin).splitlines(keepends=True)
    whole = lines if begin == 0 else lines[1:]
    return size - sum(map(len, whole[-_TAIL_LINES:]))


def _wait() -> bool:
    time.sleep(_PAUSE_SECONDS)
    return True


def _journal(unit: str, *, follow: bool, start: datetime | None) -> Iterator[bytes]:
    """Yield the entries of the service's journal. Raises InputError if it cannot be read."""
    program = shutil.which("journalctl")
    if program is None:
        raise InputError("there is no journalctl here; name a file, or `-` for standard input")
    command = [program, f"--unit={unit}", "--output=json", "--all", "--no-pager", "--quiet"]
    command += ["--follow"] if follow else []
    command += [f"--since=@{start.timestamp():.6f}"] if start else []
    empty = True
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            for line in process.stdout or ():
                empty = False
                yield line
        finally:
            if process.poll() is None:
                process.terminate()
    if process.returncode > 0:
        raise InputError(f"journalctl ended with status {process.returncode}")
    if empty:
        terminal.warn(f"The journal has nothing of {unit}; name another --unit, or a file.")

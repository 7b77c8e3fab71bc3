"""The log: structured, one record per line whatever stands in it, without secrets, and never in the way.

    log = structlog.get_logger()
    log.info("delivery.accepted", delivery=42, attempt=1, relay="mx.example.net", code=250)

Records go to the journal with native fields when systemd listens (`journalctl -u mailbound ACTIVITY=spring`),
in colour to a terminal, else as lines of JSON. What libraries say through Python's own logging goes the same
way as `library.warned`. Nothing here blocks: when nobody reads the log, records are dropped and counted, and
`log.dropped` says how many once someone reads again.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

from mailbound.config import Log
from mailbound.logs import journal as native
from mailbound.logs import rendering
from mailbound.logs.scrubbing import Scrubber
from mailbound.logs.sink import Sink, to_stream

_Lines = Callable[[str, Sequence[str], Sequence[Sequence[Any]]], list[bytes]]
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_sink: Sink | None = None
_processors: list[Processor] = []
_lines: _Lines | None = None


def configure(
    section: Log,
    *,
    secrets: Iterable[SecretStr] = (),
    stream: TextIO | None = None,
    journal: Path | None = None,
) -> None:
    """Send all records, from now on, where `section` says. It may be called again with a new configuration.

    `secrets` are hidden wherever they stand. Without `stream` it is standard error, or the journal if that is
    where standard error leads; `journal` is the socket of another one.
    """
    global _lines  # noqa: PLW0603 - a process has one log
    if journal is None and stream is None and section.format is None and native.listens():
        journal = native.SOCKET
    stream = stream or sys.stderr
    console = section.format == "console" or (section.format is None and journal is None and stream.isatty())
    render = _renderer(stream, console=console, journal=journal)
    scrubber = Scrubber(secrets, clear_addresses=section.addresses == "clear")
    _replace(Sink(native.to_socket(journal) if journal else to_stream(stream), told=_told(render)))
    level = _LEVELS[section.level]
    _lines = None if console or journal else _together(scrubber, written=level <= _LEVELS["info"])
    _processors[:] = [
        _from(level),
        _stamped,
        rendering.traceback_text if console else rendering.traceback_frames,
        scrubber,
        lambda _logger, _method, record: render(record),
    ]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS["debug"]),
        logger_factory=lambda *_: _door,
        cache_logger_on_first_use=True,  # what a new configuration changes is behind the list and the door
    )
    root = logging.getLogger()
    root.handlers = [_Library()]
    root.setLevel(max(level, logging.WARNING))


def info_each(event: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a record for each row, as `log.info` would with `names` for the row's values.

    Lines of JSON are made together, which takes a quarter of the time.
    """
    if _lines is None:
        for row in rows:
            structlog.get_logger().info(event, **dict(zip(names, row, strict=True)))
    elif _sink is not None:
        _sink.put(*_lines(event, names, rows))


def flush(seconds: float = 2.0) -> None:
    """Wait until everything logged so far is written, but no longer than `seconds`."""
    if _sink is not None:
        _sink.flush(seconds)


def dropped() -> int:
    """Return how many records were lost since `configure`, because nobody read the log."""
    return _sink.dropped if _sink is not None else 0


def _together(scrubber: Scrubber, *, written: bool) -> _Lines:
    """Return what makes lines of JSON of many records of one event, or none if that level is not `written`."""

    def lines(event: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bytes]:
        if not (written and rows):
            return []
        shared = scrubber(None, "info", dict(_stamped(None, "info", {"event": event})))
        columns = {
            name: scrubber.column(name, column)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }
        return rendering.json_lines(shared, columns)

    return lines


class _Library(logging.Handler):
    """Brings what libraries log through Python's own logging."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's mistake in its message must not become ours
            text = repr(record.msg)
        log = structlog.get_logger()
        speak = log.error if record.levelno >= logging.ERROR else log.warning
        speak("library.warned", library=record.name, text=text, exc_info=record.exc_info)


class _Door:
    """The logger that structlog calls: it leads to the sink of the moment."""

    def put(self, record: bytes) -> None:
        if _sink is not None:
            _sink.put(record)

    debug = info = warning = error = critical = put


_door = _Door()


def _from(level: int) -> Processor:
    """Return a processor that drops what is below `level`."""
    below = {name for name, value in _LEVELS.items() if value < level}

    def pass_on(_logger: WrappedLogger, method: str, record: EventDict) -> EventDict:
        if method in below:
            raise structlog.DropEvent
        return record

    return pass_on


def _stamped(_logger: WrappedLogger, method: str, record: EventDict) -> EventDict:
    """Put the time, the level and the event in front."""
    seconds, fraction = divmod(time.time_ns() // 1000, 1_000_000)
    event = record.pop("event", "")
    return {"timestamp": f"{_second(seconds)}.{fraction:06}Z", "level": method, "event": event, **record}


@functools.lru_cache(4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _renderer(stream: TextIO, *, console: bool, journal: Path | None) -> Callable[[EventDict], bytes]:
    if journal:
        return native.entry
    return (
        rendering.console(colours=stream.isatty() and "NO_COLOR" not in os.environ)
        if console
        else rendering.json_line
    )


def _told(render: Callable[[EventDict], bytes]) -> Callable[[int], bytes]:
    def told(count: int) -> bytes:
        record: EventDict = {"event": "log.dropped", "level": "warning", "count": count}
        return render(_stamped(None, record["level"], record))

    return told


def _replace(sink: Sink) -> None:
    global _sink  # noqa: PLW0603 - a process has one log
    if _sink is None:
        atexit.register(flush)
    else:
        _sink.close()
    _sink = sink

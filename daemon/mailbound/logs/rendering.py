"""Records as octets: lines of JSON for machines, coloured lines for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict

traceback_frames = structlog.processors.ExceptionRenderer(
    ExceptionDictTransformer(show_locals=False, max_frames=20)  # locals hold secrets and bodies
)
traceback_text = structlog.processors.format_exc_info
_encode = json.JSONEncoder().encode
_quoted = json.encoder.encode_basestring_ascii


def json_line(record: EventDict) -> bytes:
    """Return `record` as one line of JSON: what is not ASCII is escaped, so no value ends the line."""
    return _encode(record).encode() + b"\n"


def json_lines(shared: EventDict, columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """Return what `json_line` would of many records: what they share, and then a value of each column."""
    around = [_encode(shared)[:-1], *(f", {_quoted(name)}: " for name in columns)]
    line = "%s".join(text.replace("%", "%%") for text in (around[0] + around[1], *around[2:], "}\n"))
    return [(line % row).encode() for row in zip(*map(_written, columns.values()), strict=True)]


def _written(column: Sequence[Any]) -> Sequence[Any]:
    kinds = set(map(type, column))
    if kinds <= {int, float}:
        return list(map(repr, column))
    return list(map(_quoted if kinds == {str} else _encode, column))


def console(*, colours: bool) -> Callable[[EventDict], bytes]:
    """Return what renders a record for people; a traceback takes lines of its own, nothing else can."""
    render = structlog.dev.ConsoleRenderer(
        colors=colours, exception_formatter=structlog.dev.plain_traceback, pad_event_to=24
    )

    def line(record: EventDict) -> bytes:
        safe = {printable(key): _printable_value(key, value) for key, value in record.items()}
        safe["event"] = printable(str(record.get("event", "")))
        return str(render(None, "", safe)).encode(errors="backslashreplace") + b"\n"

    return line


def printable(text: str, *, keep: str = "") -> str:
    """Return `text` with control characters escaped: none can move a cursor, end a line, change a colour."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character in keep or character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _printable_value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, keep="\n") if key == "exception" else _shown(value)
    return value if isinstance(value, int | float | None) else _shown(json.dumps(value))


def _shown(text: str) -> object:
    return text if text.isprintable() else _Escaped(text)


class _Escaped:
    """A text with control characters, which the console must show by its `repr`."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)

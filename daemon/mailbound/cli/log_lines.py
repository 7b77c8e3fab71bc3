"""One record of the log: read from a JSON line or a journal entry, filtered, and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import typer

from mailbound.cli import terminal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Level(StrEnum):
    """How important a record is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


_RANKS = {level.value: rank for rank, level in enumerate(Level)}
_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red", "critical": "red"}

# The priorities of syslog (RFC 5424 §6.2.1), which the journal keeps.
_PRIORITIES = ("critical", "critical", "critical", "error", "warning", "info", "info", "debug")

# What the journal adds to an entry by itself, or keeps for itself.
_JOURNAL_OWN = ("_", "SYSLOG_", "CODE_", "JOB_")
_JOURNAL_NAMES = frozenset({"MESSAGE", "PRIORITY", "MESSAGE_ID", "INVOCATION_ID", "EVENT"})

_EVENT_WIDTH = 22


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `line` is what was read where it is none of ours; it has no event then."""

    at: datetime | None = None
    level: str = ""
    event: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    line: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted; everything that is given must be so."""

    events: tuple[str, ...] = ()  # globs, of which one must match
    activity: str | None = None  # its name or id
    level: Level | None = None
    since: datetime | None = None
    fields: tuple[tuple[str, str], ...] = ()  # a key and a glob

    def passes(self, record: Record) -> bool:
        """Tell whether a record is wanted. A line that is none of ours has neither event nor fields."""
        if self.events and not any(fnmatchcase(record.event, glob) for glob in self.events):
            return False
        if self.activity is not None and self.activity not in _activity(record):
            return False
        if self.level is not None and _RANKS.get(record.level, _RANKS[self.level]) < _RANKS[self.level]:
            return False
        if self.since is not None and record.at is not None and record.at < self.since:
            return False
        return all(_matches(record, key, glob) for key, glob in self.fields)


def _activity(record: Record) -> set[str]:
    return {plain(record.fields[key]) for key in ("activity", "activity_id") if key in record.fields}


def _matches(record: Record, key: str, glob: str) -> bool:
    if key not in record.fields:
        return False
    text = plain(record.fields[key])
    return text == glob or fnmatchcase(text, glob)


def of_line(raw: bytes) -> Record:
    """Return the record that a line of JSON is; what is no JSON object is kept as it stands."""
    text = raw.decode(errors="replace").rstrip("\r\n")
    found = _object(text)
    return Record(line=text) if found is None else _record(found)


def of_journal(raw: bytes) -> Record:
    """Return the record of one entry of `journalctl -o json`.

    Its message is one of our JSON lines, or the fields are the entry's own, in capitals.
    """
    entry = _object(raw.decode(errors="replace"))
    if entry is None:
        return Record(line=raw.decode(errors="replace").rstrip("\r\n"))
    message = _text(entry.get("MESSAGE"))
    at = _microseconds(_text(entry.get("__REALTIME_TIMESTAMP")))
    inner = _object(message)
    if inner is not None:
        record = _record(inner)
        return record if record.at else Record(at, record.level, record.event, record.fields)
    own = {name: value for name, value in entry.items() if not name.startswith(_JOURNAL_OWN)}
    event = _text(entry.get("EVENT"))
    if not event:
        return Record(at, _priority(entry), line=message)
    fields = {name.lower(): _text(value) for name, value in own.items() if name not in _JOURNAL_NAMES}
    return Record(at, _priority(entry), event, fields)


def _object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _record(found: dict[str, Any]) -> Record:
    fields = dict(found)
    at = _moment(fields.pop("timestamp", None))
    level = str(fields.pop("level", "")).lower()
    return Record(at, level, plain(fields.pop("event", "")), fields)


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _microseconds(text: str) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=int(text))
    except (ValueError, OverflowError):
        return None


def _priority(entry: Mapping[str, Any]) -> str:
    text = _text(entry.get("PRIORITY"))
    return _PRIORITIES[int(text)] if text in set("01234567") else ""


def _text(value: object) -> str:
    """Return what a journal field holds: text, octets where it is not printable, or several values."""
    if value is None:
        return ""
    if isinstance(value, list):
        if value and all(isinstance(octet, int) and 0 <= octet < 256 for octet in value):
            return bytes(value).decode(errors="replace")
        return " ".join(map(_text, value))
    return str(value)


def plain(value: object) -> str:
    """Return a field's value as it is shown and compared: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_json(record: Record) -> str:
    """Return a record as one line of JSON; of what is none of ours only `line` is known, and perhaps when."""
    head = {"timestamp": _iso(record.at), "level": record.level, "event": record.event, "line": record.line}
    known = {key: value for key, value in head.items() if value}
    # ASCII, so that neither a terminal nor a reader of lines takes anything in it for more than text.
    return json.dumps(known | dict(record.fields))


def as_text(record: Record, *, colours: bool) -> str:
    """Return a record as one line for a person: the moment (UTC), the level, the event, its fields."""

    def style(text: str, name: str, *, bold: bool | None = None) -> str:
        return typer.style(text, fg=name, bold=bold) if colours and text else text

    when = style(terminal.cell(record.at), "bright_black")
    if record.line:
        dimmed = style(terminal.escape(record.line), "bright_black")
        return f"{when} {dimmed}" if when else dimmed
    level = style(f"{terminal.escape(record.level):<8}", _COLOURS.get(record.level, "white"))
    event = style(f"{terminal.escape(record.event):<{_EVENT_WIDTH}}", "bright_white", bold=True)
    fields = " ".join(
        f"{style(terminal.escape(key), 'cyan')}={_shown(value)}" for key, value in record.fields.items()
    )
    return " ".join(part for part in (when, level, event, fields) if part).rstrip()


def _shown(value: object) -> str:
    text = plain(value)
    quoted = isinstance(value, str) and (not text or any(char in text for char in ' "='))
    return terminal.escape(json.dumps(text, ensure_ascii=False) if quoted else text)


def _iso(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else ""

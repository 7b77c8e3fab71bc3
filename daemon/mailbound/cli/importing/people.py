"""A record becomes a person: which column is what, and what may stand in it."""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mailbound import address as addresses
from mailbound.database.imports import Person
from mailbound.errors import InputError

NAMES: Mapping[str, Sequence[str]] = {
    "external_id": ("external_id",),
    "address": ("address", "email"),
    "name": ("name",),
    "locale": ("locale",),
    "time_zone": ("time_zone",),
    "opt_in": ("opt_in",),
    "consent_at": ("consent_at",),
}
"""What a column is called if nothing else is said."""

_YES = frozenset({"true", "yes", "y", "1", "on", "in", "t"})
_NO = frozenset({"false", "no", "n", "0", "off", "out", "f"})
# A leading zero or plus makes it text (post codes, telephones), and so do more digits than a double keeps.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")
_BOOLEANS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_LOCALE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_LIMITS = {"external_id": 255, "name": 255, "locale": 35, "time_zone": 64}
_SHORTEST_LIMIT = min(_LIMITS.values())


def columns(mapped: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the columns' names for each field, from `field=column` and the defaults. Raises InputError."""
    names = dict(NAMES)
    for text in mapped:
        field, equals, column = text.partition("=")
        if field not in NAMES or not equals or not column:
            raise InputError(f"--map {text}: write FIELD=COLUMN, where FIELD is one of: {', '.join(NAMES)}")
        names[field] = (column,)
    return names


class Reader:
    """Turns records into people."""

    def __init__(
        self,
        names: Mapping[str, Sequence[str]],
        *,
        head: Sequence[str] | None,
        as_text: Sequence[str] = (),
        now: datetime,
    ) -> None:
        """Take the columns' names. `head` is None for JSON, where each record names its own, with types.

        Raises InputError if the file has no column for what every person needs, or for what was asked for.
        """
        self._names = (
            names if head is None else {field: _present(some, head) for field, some in names.items()}
        )
        self._typed = head is None
        self._as_text = frozenset(as_text)
        self._now = now
        self._taken = {name for some in self._names.values() for name in some}
        if head is not None:
            self._check(names, head)

    def _check(self, names: Mapping[str, Sequence[str]], head: Sequence[str]) -> None:
        for field, some in names.items():
            wanted = field in {"external_id", "address"} or some != NAMES[field]
            if wanted and not self._names[field]:
                raise InputError(
                    f"there is no column {' or '.join(some)}; the file has: {', '.join(head)}. "
                    f"Say which it is with --map {field}=COLUMN"
                )
        if self._names["consent_at"] and not self._names["opt_in"]:
            raise InputError("there is a column consent_at, but none for the opt-in; use --map opt_in=COLUMN")
        unknown = self._as_text - set(head)
        if unknown:
            raise InputError(f"--text {', '.join(sorted(unknown))}: the file has: {', '.join(head)}")

    @property
    def has_opt_in(self) -> bool:
        """Return whether the file may say who opted in; of JSON nobody knows before it is read."""
        return bool(self._names["opt_in"])

    def external_id(self, fields: Mapping[str, Any]) -> str:
        """Return whom a record is about, or "" if it does not say; it may have other faults."""
        value = self._value(fields, "external_id")
        return "" if isinstance(value, bool | dict | list) or value is None else str(value).strip()

    def person(self, fields: Mapping[str, Any]) -> Person:
        """Return whom a record describes. Raises InputError, with the reason, if it cannot be used."""
        external_id = self._text(fields, "external_id")
        if not external_id:
            raise InputError("external_id is missing")
        address = self._text(fields, "address")
        if not address:
            raise InputError("the address is missing")
        receive = _wish(self._value(fields, "opt_in"))
        return Person(
            external_id=external_id,
            address=addresses.normalise(address),
            name=self._text(fields, "name"),
            locale=self._checked(fields, "locale", _locale),
            time_zone=self._checked(fields, "time_zone", _time_zone),
            attributes=self._attributes(fields),
            receive=receive,
            consent_at=_moment(self._value(fields, "consent_at"), self._now) if receive is not None else None,
        )

    def _value(self, fields: Mapping[str, Any], field: str) -> Any:
        for name in self._names[field]:
            if name in fields:
                return fields[name]
        return None

    def _text(self, fields: Mapping[str, Any], field: str) -> str | None:
        """Return a field as text; None if the record has no such column, so that what is known stays."""
        for name in self._names[field]:
            if name in fields:
                return _checked_text(fields[name], field)
        return None

    def _checked(self, fields: Mapping[str, Any], field: str, check: Any) -> str | None:
        text = self._text(fields, field)
        return check(text) if text else text

    def _attributes(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        others = {name: value for name, value in fields.items() if name and name not in self._taken}
        if self._typed:
            nested = others.pop("attributes", None)
            return others | nested if isinstance(nested, dict) else others
        as_text = self._as_text
        return {
            name: value.strip() or None if name in as_text else guess(value) for name, value in others.items()
        }


def _present(names: Sequence[str], head: Sequence[str]) -> Sequence[str]:
    for wanted in names:
        for name in head:
            if name.casefold() == wanted.casefold():
                return (name,)
    return ()


def guess(text: str) -> str | int | float | bool | None:
    """Return what a CSV value looks like: a number, a boolean, text, or nothing."""
    text = text.strip()
    if not text:
        return None
    if text[0] in "-0123456789":
        number = _NUMBER.fullmatch(text)
        if number is None:
            return text
        return float(text) if number[1] else int(text)
    return _BOOLEANS.get(text, text)


def _checked_text(value: Any, field: str) -> str:
    if type(value) is str:  # nearly always
        text = value.strip()
        if len(text) <= _SHORTEST_LIMIT and text.isprintable():
            return text
    if value is None:
        return ""
    if isinstance(value, bool | dict | list):
        raise InputError(f"{field} is no text")
    text = str(value).strip()
    if field != "address" and not text.isprintable() and _CONTROL.search(text):
        raise InputError(f"{field} has a control character")
    if len(text) > _LIMITS.get(field, 320):
        raise InputError(f"{field} is longer than {_LIMITS.get(field, 320)} characters")
    return text


def _wish(value: Any) -> bool | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _YES:
        return True
    if text in _NO:
        return False
    if not text:
        return None
    raise InputError(f"opt_in is neither yes nor no: {str(value)!r}")


@functools.lru_cache(maxsize=1024)
def _locale(text: str) -> str:
    if not _LOCALE.fullmatch(text):
        raise InputError(f"{text!r} is no locale, such as de or en-GB")
    return text


@functools.lru_cache(maxsize=1024)
def _time_zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(f"{text!r} is no time zone, such as Europe/Berlin") from None
    return text


def _moment(value: Any, now: datetime) -> datetime | None:
    """Return when somebody consented, in UTC unless it says otherwise.

    A consent of the future is refused: it would be newer than a later no.
    """
    text = "" if value is None else str(value).strip()
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"consent_at is no date and time, such as 2026-01-31T12:00:00Z: {text!r}") from None
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise InputError(f"consent_at lies outside of the calendar: {text!r}") from None
    if moment > now:
        raise InputError(f"consent_at lies in the future: {text}")
    return moment

"""When a run is due, when it may start, and when it is too late.

A local time that a zone leaps over means the first instant after the leap; one that it passes twice means the
first of the two. Whatever comes back is in UTC.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from mailbound.errors import InputError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_UNITS = {"s": _SECOND, "m": 60 * _SECOND, "h": 3600 * _SECOND, "d": _DAY, "w": 7 * _DAY}
_RELATIVE = re.compile(r"(?:\+|in )\s*(\d{1,5})\s*(s|m|h|d|w|(?:second|minute|hour|day|week)s?)")
_ABSOLUTE = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)\s*(Z|[+-]\d\d:?\d\d|[A-Za-z][\w+/-]*)?")
_HOURS = re.compile(r"(\d{1,2}:\d\d)\s*-\s*(\d{1,2}:\d\d)")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


# --- moments ----------------------------------------------------------------------------------------------


def zone(name: str) -> ZoneInfo:
    """Return the time zone called `name`. Raises InputError, with the nearest name that exists."""
    try:
        return ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        mend = f"did you mean {near[0]}?" if near else "write for example Europe/Berlin or UTC"
        raise InputError(f"{name} is no time zone; {mend}") from None


def instant(local: datetime, where: ZoneInfo) -> datetime:
    """Return the moment, in UTC, at which the clocks of `where` first show `local` or, in a gap, more."""
    first = local.replace(tzinfo=where, fold=0).astimezone(UTC)
    if first.astimezone(where).replace(tzinfo=None) == local:
        return first
    # In a gap. What the offset from before makes of it is after the leap, and the other way round.
    after, before = first, local.replace(tzinfo=where, fold=1).astimezone(UTC)
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        if middle.astimezone(where).replace(tzinfo=None) < local:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def parse_when(text: str, where: str, now: datetime) -> datetime:
    """Return the moment that a person means: `now`, `in 2 hours`, `+10m` or `2026-12-01 09:00`.

    A date and time may be followed by an offset or a zone; else it is in the zone `where`. Raises InputError.
    """
    words = " ".join(text.split())
    if words == "now":
        return now.astimezone(UTC)
    if relative := _RELATIVE.fullmatch(words):
        return now.astimezone(UTC) + int(relative[1]) * _UNITS[relative[2][0]]
    if absolute := _ABSOLUTE.fullmatch(words):
        return _absolute(absolute[1], absolute[2], absolute[3] or where)
    raise InputError(f"{text!r} is no time; write 2026-12-01 09:00, now, in 2 hours or +10m")


def _absolute(day: str, clock: str, place: str) -> datetime:
    try:
        if not place[-1].isalpha() or place == "Z":
            return datetime.fromisoformat(f"{day}T{clock}{place}").astimezone(UTC)
        return instant(datetime.fromisoformat(f"{day}T{clock}"), zone(place))
    except (ValueError, OverflowError):
        raise InputError(f"{day} {clock} {place} does not exist in the calendar") from None


# --- due times --------------------------------------------------------------------------------------------


def parse_cron(text: str) -> str:
    """Return a cron expression of five fields, neatly spaced. Raises InputError, naming the bad field."""
    expression = " ".join(text.split())
    mend = "write minute, hour, day of month, month, day of week, such as 30 8 * * mon-fri"
    if expression.count(" ") != 4:
        raise InputError(f"cron expression {text!r} does not have five fields; {mend}")
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise InputError(f"cron expression {text!r}: {str(error).lower()}; {mend}") from None
    except StopIteration:
        raise InputError(f"cron expression {text!r} never comes due") from None
    return expression


def occurrences(
    *, starts_at: datetime | None, cron: str | None, where: ZoneInfo, after: datetime, until: datetime
) -> Iterator[datetime]:
    """Yield the due times after `after`, up to and with `until`, in order.

    Without `cron` that is `starts_at` alone; with both, cron begins at `starts_at`. A cron time that a zone
    leaps over comes due right after the leap, one that it passes twice comes due the first time; with a
    wildcard hour it follows real time.
    """
    if cron is None:
        if starts_at is not None and after < starts_at <= until:
            yield starts_at.astimezone(UTC)
        return
    if starts_at is not None:
        after = max(after, starts_at - _SECOND)
    # A day of lead, since cronsim knows a repeated hour only when it has come through the first one.
    for due in CronSim(cron, (after - _DAY).astimezone(where)):
        moment = due.astimezone(UTC)
        if moment > until:
            return
        if moment > after:
            yield moment


# --- windows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """The hours of the week in which a run may send; past midnight if it closes before it opens."""

    days: frozenset[int]
    """The days on which it opens, Monday being 0; at least one."""
    opening: time
    closing: time
    where: ZoneInfo

    @classmethod
    def thaw(cls, kept: Mapping[str, Any], where: str) -> Self:
        """Return the window that the database keeps, in the zone `where` unless it names its own.

        Raises InputError if it has no day, or a zone that does not exist.
        """
        days = frozenset(DAYS.index(day) for day in kept["days"])
        if not days:
            raise InputError("the window opens on no day")
        opening, closing = time.fromisoformat(kept["from"]), time.fromisoformat(kept["to"])
        return cls(days, opening, closing, zone(kept.get("zone", where)))

    def contains(self, now: datetime) -> bool:
        """Return whether it is open."""
        return self.opens(now) == now

    def opens(self, now: datetime) -> datetime:
        """Return `now` if it is open, else when it next opens."""
        for opening, closing in self._spans(now):
            if now < closing:
                return max(opening, now.astimezone(UTC))
        raise AssertionError("unreachable: a window opens every week")

    def open_between(self, start: datetime, end: datetime) -> timedelta:
        """Return for how long it is open from `start` to `end`."""
        total = timedelta()
        for opening, closing in self._spans(start):
            if opening >= end:
                break
            total += max(min(closing, end) - max(opening, start), timedelta())
        return total

    def _spans(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield when it opens and closes, from the last opening before `start` on, without end."""
        day = start.astimezone(self.where).date() - _DAY
        while True:
            if day.weekday() in self.days:
                opening, closing = self._span(day)
                if opening < closing:  # else the zone leapt over it
                    yield opening, closing
            day += _DAY

    def _span(self, day: date) -> tuple[datetime, datetime]:
        last = day if self.opening < self.closing else day + _DAY
        return (
            instant(datetime.combine(day, self.opening), self.where),
            instant(datetime.combine(last, self.closing), self.where),
        )


class Hours:
    """When an activity may send: always, in its window, or in one that opens by each recipient's own clock."""

    def __init__(self, kept: Mapping[str, Any] | None, where: str) -> None:
        """Take the window that the database keeps, if any, of an activity in the zone `where`."""
        self._kept = kept or {}
        self._window = Window.thaw(kept, where) if kept else None
        self._by_zone: dict[str, Window] = {}
        self.by_recipient = bool(self._kept.get("by_recipient"))

    @property
    def of_run(self) -> Window | None:
        """Return the window of the run as a whole; None if it is always open, or open somewhere."""
        return None if self.by_recipient else self._window

    def opens(self, zone: str, now: datetime) -> datetime:
        """Return `now` if a recipient in `zone` may have the message, else when they next may.

        Whose zone is not known, or none, goes by the window's.
        """
        if self._window is None:
            return now
        if not self.by_recipient or not zone:
            return self._window.opens(now)
        if zone not in self._by_zone:
            self._by_zone[zone] = self._in(zone)
        return self._by_zone[zone].opens(now)

    def _in(self, name: str) -> Window:
        try:
            return Window.thaw({**self._kept, "zone": name}, name)
        except InputError:
            assert self._window is not None  # noqa: S101 - whoever asks has a window
            return self._window


def parse_window(text: str, *, by_recipient: bool = False) -> dict[str, Any]:
    """Return what is kept for a window such as `mon-fri 09:00-17:00` or `22:00-06:00 Europe/Berlin`.

    With `by_recipient` it opens by each recipient's own clock. Days are single or ranges, joined by commas; without
    any, it is every day. Raises InputError.
    """
    found = _HOURS.search(text)
    if not found:
        raise InputError(f"window {text!r} has no hours; write for example mon-fri 09:00-17:00")
    opening, closing = (_clock(hour) for hour in found.groups())
    if opening == closing != "00:00":
        raise InputError(f"window {text!r} closes when it opens; for the whole day write 00:00-24:00")
    kept: dict[str, Any] = {"days": _days(text[: found.start()]), "from": opening, "to": closing}
    if place := text[found.end() :].strip():
        kept["zone"] = zone(place).key
    if by_recipient:
        kept["by_recipient"] = True
    return kept


def _clock(text: str) -> str:
    if text == "24:00":
        return "00:00"
    if not (found := _CLOCK.fullmatch(text)):
        raise InputError(f"{text} is no time of day; write 00:00 to 24:00")
    return f"{int(found[1]):02}:{found[2]}"


def _days(text: str) -> list[str]:
    chosen: set[int] = set()
    for part in re.split(r"[,\s]+", text.strip().lower()):
        first, _, last = part.partition("-")
        if part in {"", "daily"}:
            first, last = "mon", "sun"
        start, end = _weekday(first), _weekday(last or first)
        chosen.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    return [DAYS[day] for day in sorted(chosen)]


def _weekday(text: str) -> int:
    found = [number for number, day in enumerate(DAYS) if day == text[:3]]
    if not found:
        raise InputError(f"{text!r} is no day of the week; write mon, tue, wed, thu, fri, sat or sun")
    return found[0]


# --- starting ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The run may start now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The run may not start before `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Missed:
    """The run could have started for longer than its grace, and did not: `late` is for how long."""

    late: timedelta


def decide(due: datetime, *, now: datetime, grace: timedelta, window: Window | None) -> Start | Wait | Missed:
    """Return whether a run that is `due` and has not started may start.

    Only time in which it could have started counts against its grace: none while its window was closed.
    """
    if now < due:
        return Wait(window.opens(due) if window else due)
    late = window.open_between(due, now) if window else now - due
    if late > grace:
        return Missed(late)
    if window and not window.contains(now):
        return Wait(window.opens(now))
    return Start()

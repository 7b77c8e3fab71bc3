"""Moments as an operator writes them: `90s`, `30m`, `12h`, `7d` ago, a date, or a date and time."""

from __future__ import annotations

from datetime import UTC, datetime

from mailbound.errors import InputError


def moment(text: str, *, now: datetime) -> datetime:
    """Return the moment that `text` stands for. Raises InputError if it stands for none.

    A date without a time is its midnight; what names no zone is UTC.
    """
    from mailbound.config import quantities

    try:
        read = datetime.fromisoformat(text.strip())
    except ValueError:
        pass
    else:
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    try:
        return now.astimezone(UTC) - quantities.duration(text.strip())
    except (ValueError, OverflowError):
        raise InputError(
            f"--since {text!r} is no moment; write it like 30m, 12h, 7d, 2026-11-24 or 2026-11-24T09:30+01:00"
        ) from None


def day(text: str, *, now: datetime) -> datetime:
    """Return the same, but days begin at midnight (UTC): `7d` is today and the seven days before.

    What was sent is counted by day, so that only such a period can be compared with it.
    """
    found = moment(text, now=now)
    if text.strip().endswith("d"):
        return found.replace(hour=0, minute=0, second=0, microsecond=0)
    return found

"""How a planned activity looks: when it is due, and what becomes of a message that does not arrive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mailbound import schedule
from mailbound.cli import terminal
from mailbound.config import quantities

if TYPE_CHECKING:
    from mailbound.database.activities import Activity


def show(activity: Activity) -> None:
    """Print an activity."""
    terminal.facts(
        [
            ("activity", f"{activity.name} (number {activity.id})"),
            ("store", activity.store),
            ("segment", activity.segment),
            ("template", activity.template),
            ("due", due(activity) or "whenever `activity start` says so"),
            ("window", _hours(activity)),
            ("grace", f"{quantities.write_duration(activity.grace)} late at most, else the run is missed"),
            ("expires after", f"{quantities.write_duration(activity.expires_after)} of trying"),
            ("in doubt", f"{activity.in_doubt} (after no reply to the final dot)"),
            ("soft bounces", _resent(activity)),
            ("ended", activity.ended_at),
        ]
    )


def as_json(activity: Activity) -> dict[str, Any]:
    """Return an activity for machines: durations in seconds."""
    names = (each for each in activity.__dataclass_fields__ if each != "planned_through")
    values = {each: getattr(activity, each) for each in names}
    return {
        f"{name}_seconds" if isinstance(value, timedelta) else name: (
            int(value.total_seconds()) if isinstance(value, timedelta) else value
        )
        for name, value in values.items()
    }


def _resent(activity: Activity) -> str:
    if not activity.resend_soft:
        return "are not sent again"
    every = quantities.write_duration(activity.resend_every)
    return f"are sent again after {every}, {terminal.counted(activity.resend_soft, 'time')} at most"


def due(activity: Activity) -> str:
    """Return when an activity is due, in words; "" if nobody said so."""
    start = terminal.cell(activity.starts_at)
    if activity.cron is None:
        return start
    return f"{activity.cron} {activity.time_zone}" + (f" from {start} on" if start else "")


def _hours(activity: Activity) -> str:
    window = activity.window
    if window is None:
        return ""
    zone = window.get("zone", activity.time_zone)
    hours = f"{_days(window['days'])} {window['from']}-{window['to']} {zone}"
    return f"{hours}, or each recipient's own zone where it is known" if window.get("by_recipient") else hours


def _days(days: Sequence[str]) -> str:
    """Return days as a person writes them: `mon-fri`, `mon,wed`."""
    numbers = sorted(schedule.DAYS.index(day) for day in days)
    runs = [[numbers[0]]]
    for number in numbers[1:]:
        if number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    names = ([schedule.DAYS[number] for number in run] for run in runs)
    return ",".join("-".join((run[0], run[-1])) if len(run) > 1 else run[0] for run in names)

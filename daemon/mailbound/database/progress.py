"""What holds a run back now, from what its daemons and its deliveries say."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from mailbound import holding, schedule
from mailbound.database import nodes, remaining
from mailbound.database.activities import Activity
from mailbound.database.runs import Run


def held_back(connection: sa.Connection, run: Run, activity: Activity, *, now: datetime) -> str:
    """Return what holds a run back, in words; "" if it is over or did not begin."""
    window = schedule.Hours(activity.window, activity.time_zone).of_run
    opens_at = window.opens(now) if window else now
    live = nodes.live(connection)
    return holding.of_run(
        run.state,
        now=now,
        note=run.note,
        opens_at=opens_at if opens_at > now else None,
        due_at=remaining.next_due(connection, run.id),
        nodes={f"{row.name} ({row.id})": (row.holding or {}).get(activity.store, "") for row in live},
        silent={
            f"{row.name} ({row.id})": row.asked_at - row.seen_at
            for row in live
            if row.asked_at - row.seen_at > nodes.QUIET
        },
    )

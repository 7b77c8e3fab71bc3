"""By what reports proved to be genuine: which of the places that a token travels in survive the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from mailbound.database.tables import bounce
from mailbound.model import Evidence, Kind

_REPORTS = (Kind.BOUNCE.value, Kind.DELAY.value, Kind.SUCCESS.value)


@dataclass(frozen=True, slots=True)
class Survived:
    """How many signed reports came to a store, and in how many of them each carrier brought its token back."""

    reports: int
    by_carrier: Counter[str]


def survived(connection: sa.Connection, store_id: int, *, since: datetime) -> Survived:
    """Return what brought tokens back to a store since a moment."""
    query = (
        sa.select(bounce.c.carriers, sa.func.count())
        .where(
            bounce.c.at >= since,
            bounce.c.store_id == store_id,
            bounce.c.kind.in_(_REPORTS),
            bounce.c.evidence == Evidence.SIGNED,
            bounce.c.mail_id.is_not(None),
        )
        .group_by(bounce.c.carriers)
    )
    reports, by_carrier = 0, Counter[str]()
    for carriers, count in connection.execute(query):
        reports += count
        by_carrier.update(dict.fromkeys(carriers.split(), count))
    return Survived(reports, by_carrier)

"""Mail that a person has to read: nothing is guessed from what people write."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from mailbound.database.reports.sent import Scope
from mailbound.database.tables import bounce, inbound_mail, inbound_raw
from mailbound.model import Disposition, Kind


@dataclass(frozen=True, slots=True)
class Letters:
    """How many mails came that only a person understands."""

    wishes: int  # to unsubscribe, without a token of ours; in quarantine until somebody accepts them
    ordinary: int  # people wrote them
    unrecognised: int  # they look like reports, and nobody has dropped them


def of(connection: sa.Connection, scope: Scope) -> Letters | None:
    """Return what came since the beginning of a scope, or None for an activity: nobody knows which one they mean."""
    if scope.activity_id is not None:
        return None
    wishes = sa.select(sa.func.count()).where(
        bounce.c.disposition == Disposition.QUARANTINED, bounce.c.kind == Kind.UNSUBSCRIBE
    )
    read = (
        sa.select(inbound_mail.c.kind, sa.func.count())
        .where(
            inbound_mail.c.kind.in_((Kind.ORDINARY.value, Kind.UNRECOGNISED.value)),
            sa.exists().where(inbound_raw.c.mail_id == inbound_mail.c.id),
        )
        .group_by(inbound_mail.c.kind)
    )
    if scope.since is not None:
        wishes = wishes.where(bounce.c.at >= scope.since)
        read = read.where(inbound_mail.c.fetched_at >= scope.since)
    counts = {kind: int(count) for kind, count in connection.execute(read)}
    return Letters(
        connection.execute(wishes).scalar_one(),
        counts.get(Kind.ORDINARY, 0),
        counts.get(Kind.UNRECOGNISED, 0),
    )

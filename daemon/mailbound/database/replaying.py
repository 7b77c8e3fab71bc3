"""Replaying: kept mail is read again, with newer code or newer rules, and what follows from it is put right.

A bounce whose verdict is still the same keeps its effects. One that means something else now is undone and decided
anew; one that was never seen in its mail is recorded; one that is no longer seen there is undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.config import Policy
from mailbound.database import bounces, inbound_mail, undoing
from mailbound.database.bounces import Finding
from mailbound.database.changes import Cause
from mailbound.database.tables import bounce
from mailbound.database.tables import inbound_mail as mail_table
from mailbound.model import Disposition
from mailbound.reading import Report


@dataclass(frozen=True, slots=True)
class Difference:
    """One bounce that means something else now. `before` or `after` is "" where there was, or is, none."""

    mail_id: int
    bounce_id: int
    address: str
    before: str
    after: str
    effect: str


def kept(connection: sa.Connection, *, since: datetime | None, after: int, limit: int) -> Sequence[Any]:
    """Return kept mail that was read before, from id `after` on: its id, store and time of arrival."""
    query = sa.select(mail_table).where(mail_table.c.state == inbound_mail.READ, mail_table.c.id > after)
    if since is not None:
        query = query.where(mail_table.c.fetched_at >= since)
    return connection.execute(query.order_by(mail_table.c.id).limit(limit)).all()


def replay(
    connection: sa.Connection,
    mail_id: int,
    report: Report,
    found: Sequence[Finding],
    *,
    limits: Policy,
    name: str,
    now: datetime,
) -> list[Difference]:
    """Put right what follows from one mail, and return what is different; `name` marks the changes in the ledger."""
    left = {row.id: row for row in _bounces_of(connection, mail_id)}
    differences = []
    for finding in found:
        row = next((row for row in left.values() if _same_subject(row, finding)), None)
        if row is None:
            differences += _new(connection, finding, limits, name)
            continue
        del left[row.id]
        if row.disposition not in {Disposition.QUARANTINED, Disposition.UNDONE}:
            differences += _again(connection, row, finding, limits=limits, name=name, now=now)
    for row in left.values():
        if row.disposition != Disposition.UNDONE:
            undoing.undo_bounces(connection, [row.id], cause=Cause("replay", who=name), now=now)
            differences.append(Difference(mail_id, row.id, row.address, _verdict(row), "", "undone"))
    understood = inbound_mail.Understood(mail_id, report.kind, report.subject, report.why)
    inbound_mail.settle(connection, [understood], now=now)
    return differences


def _bounces_of(connection: sa.Connection, mail_id: int) -> Sequence[Any]:
    return connection.execute(
        sa.select(bounce).where(bounce.c.mail_id == mail_id).order_by(bounce.c.id)
    ).all()


def _same_subject(row: Any, finding: Finding) -> bool:
    named = finding.addresses[-1] if finding.addresses else row.address
    return (row.delivery_id, row.attempt, row.address) == (finding.delivery_id, finding.attempt, named) or (
        finding.delivery_id is None and row.delivery_id is None and row.address == named
    )


def _new(connection: sa.Connection, finding: Finding, limits: Policy, name: str) -> list[Difference]:
    recorded = bounces.record(connection, finding, limits=limits, cause=Cause("replay", who=name))
    if recorded is None:
        return []
    row = bounces.find(connection, recorded.bounce_id)
    return [Difference(row.mail_id, row.id, row.address, "", _verdict(row), recorded.decision.why)]


def _again(
    connection: sa.Connection, row: Any, finding: Finding, *, limits: Policy, name: str, now: datetime
) -> list[Difference]:
    verdict = finding.verdict
    same = (row.category, row.permanent, row.action) == (verdict.category, verdict.permanent, finding.action)
    if same:
        values = {"rule": verdict.rule, "rule_version": finding.rule_version}
        connection.execute(bounce.update().where(bounce.c.id == row.id).values(values))
        return []
    undoing.undo_bounces(connection, [row.id], cause=Cause("replay", who=name), now=now)
    decision = bounces.judge_again(
        connection, row.id, finding._replace(at=row.at), limits=limits, cause=Cause("replay", who=name)
    )
    after = bounces.find(connection, row.id)
    return [Difference(row.mail_id, row.id, row.address, _verdict(row), _verdict(after), decision.why)]


def _verdict(row: Any) -> str:
    lasting = "permanent" if row.permanent else "transient"
    return " ".join(word for word in (row.action, row.status, row.category, lasting) if word)

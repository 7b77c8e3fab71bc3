"""Bounces: what was said about a delivery, what the policy made of it, and its effects, in one transaction."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailbound.config import Policy
from mailbound.database import activities, changes, effects, judging
from mailbound.database.adding import Adding
from mailbound.database.changes import Cause
from mailbound.database.judging import Finding, Judged
from mailbound.database.tables import bounce, run
from mailbound.errors import InputError
from mailbound.lifecycle import DeliveryState
from mailbound.model import (
    Action,
    Category,
    Disposition,
    Evidence,
    Kind,
    Verdict,
)
from mailbound.policy import Decision
from mailbound.status import StatusCode

__all__ = [
    "Finding",
    "Recorded",
    "Which",
    "consider",
    "doubt",
    "find",
    "finding_of",
    "judge_again",
    "recent",
    "record",
    "record_all",
]


class Recorded(NamedTuple):
    """What was made of a finding."""

    bounce_id: int
    decision: Decision
    finding: Finding
    delivery_state: DeliveryState | None
    erased: bool = False  # it speaks of somebody who wanted to be forgotten


def record(
    connection: sa.Connection, finding: Finding, *, limits: Policy, cause: Cause | None = None
) -> Recorded | None:
    """Judge a finding and write it with all its effects. Returns None if it was recorded before.

    The ledger names `cause`, which is the finding itself unless something else made us look.
    """
    return record_all(connection, [finding], limits=limits, cause=cause)[0]


def record_all(
    connection: sa.Connection, findings: Sequence[Finding], *, limits: Policy, cause: Cause | None = None
) -> list[Recorded | None]:
    """Record findings in order, as `record` does, with a few statements for as many as do not touch each other."""
    recorded: list[Recorded | None] = []
    while left := findings[len(recorded) :]:
        proven = judging.prove(connection, left)  # anew each time: the last ones may have changed deliveries
        some = proven[: judging.independent(proven)]
        judged = judging.judge(connection, some, limits, judging.open_holds(connection, some))
        recorded += _write(connection, judged, cause)
    return recorded


def judge_again(
    connection: sa.Connection, bounce_id: int, finding: Finding, *, limits: Policy, cause: Cause | None = None
) -> Decision:
    """Give a recorded bounce, whose effects were none or are undone, the verdict of `finding` and what follows.

    It is not held again: whoever asks has looked at it.
    """
    (judged,) = judging.judge(connection, judging.prove(connection, [finding]), limits, again=True)
    decision = judged.decision
    values = {**_verdict(judged), "disposition": decision.disposition, "why": decision.why}
    connection.execute(bounce.update().where(bounce.c.id == bounce_id).values(values))
    effects.write(connection, [(bounce_id, judged)], cause)
    return decision


def consider(connection: sa.Connection, finding: Finding, *, limits: Policy) -> Decision:
    """Return what `record` would decide, and write nothing."""
    (judged,) = judging.judge(connection, judging.prove(connection, [finding]), limits)
    return judged.decision


def doubt(connection: sa.Connection, finding: Finding) -> str:
    """Return why a token that is genuine is no evidence for its delivery; "" if it is, or if there is none."""
    return judging.doubt(connection, finding)


def _write(connection: sa.Connection, judged: Sequence[Judged], cause: Cause | None) -> list[Recorded | None]:
    """Write findings that were judged, with their effects; None stands for one that was recorded before."""
    ids = _insert(connection, judged)
    fresh = [(bounce_id, each) for bounce_id, each in zip(ids, judged, strict=True) if bounce_id is not None]
    states = effects.write(connection, fresh, cause)
    erased = effects.erased(connection, [each for _, each in fresh])
    return [
        None
        if bounce_id is None
        else Recorded(
            bounce_id, each.decision, each.finding, states.get(bounce_id), each.recipient_id in erased
        )
        for bounce_id, each in zip(ids, judged, strict=True)
    ]


def _insert(connection: sa.Connection, judged: Sequence[Judged]) -> list[int | None]:
    """Return the id of each new bounce, None for one that was there."""
    return _ADDED.numbers(connection, [_IN_ORDER(_row(each)) for each in judged])


_TOLD_BY = ("mail_id", "delivery_id", "attempt", "recipient_id", "action", "status_class", "address")
"""What tells the bounces of one statement apart, as far as anybody could."""

_COLUMNS = tuple(column.name for column in bounce.columns if column is not bounce.c.id)
_IN_ORDER = operator.itemgetter(*_COLUMNS)
_ADDED = Adding(
    lambda connection: changes.upsert(connection, bounce).on_conflict_do_nothing(),
    _COLUMNS,
    bounce.c.id,
    _TOLD_BY,
)


def _row(judged: Judged) -> dict[str, Any]:
    finding, target = judged.finding, judged.target
    named = finding.addresses[-1] if finding.addresses else (target.key if target else "")
    return {
        "at": finding.at,
        "mail_id": finding.mail_id,
        "store_id": target.store_id if target else finding.store_id,
        "run_id": target.run_id if target else None,
        "delivery_id": target.id if target else None,
        "attempt": finding.attempt,
        "recipient_id": judged.recipient_id,
        "address_id": target.address_id if target else None,
        "domain_id": target.domain_id if target else None,
        "address": named[:320],
        "evidence": finding.evidence.value,
        "carriers": " ".join(finding.carriers),
        "diagnostic": finding.diagnostic[:1024],
        "reporting_mta": finding.reporting_mta[:255],
        "remote_mta": finding.remote_mta[:255],
        "disposition": judged.decision.disposition.value,
        "why": judged.decision.why,
        "gist": judging.gist(finding, target.key if target else named),
        "hold_id": hold.id
        if (hold := judged.hold) and judged.decision.disposition is Disposition.HELD
        else None,
        **_verdict(judged),
    }


def _verdict(judged: Judged) -> dict[str, Any]:
    """Return the columns that a verdict decides."""
    finding = judged.finding
    verdict = finding.verdict
    return {
        "kind": finding.kind.value,
        "action": finding.action.value,
        "status": str(verdict.status) if verdict.status else "",
        "status_class": _status_class(finding),
        "category": (verdict.category if judged.sign.own_address else Category.UNCLEAR).value,
        "permanent": verdict.permanent,
        "rule": verdict.rule,
        "rule_version": finding.rule_version,
    }


def _status_class(finding: Finding) -> int:
    if finding.action in {Action.DELIVERED, Action.RELAYED, Action.EXPANDED}:
        return 2
    return 5 if finding.verdict.permanent else 4


@dataclass(frozen=True, slots=True)
class Which:
    """Which bounces are meant: all, or only those of an activity, of a run, of a hold, of a kind, or that became so."""

    activity: str | None = None
    run: int | None = None
    hold: int | None = None
    dispositions: tuple[Disposition, ...] = ()
    kind: Kind | None = None


def recent(connection: sa.Connection, which: Which = Which(), *, limit: int = 50) -> Sequence[Any]:
    """Return bounces, the latest first. Raises InputError for an unknown activity."""
    query = sa.select(bounce).order_by(bounce.c.id.desc()).limit(limit)
    if which.activity is not None:
        activity_id = activities.find(connection, which.activity).id
        query = query.join(run, run.c.id == bounce.c.run_id).where(run.c.activity_id == activity_id)
    if which.run is not None:
        query = query.where(bounce.c.run_id == which.run)
    if which.hold is not None:
        query = query.where(bounce.c.hold_id == which.hold)
    if which.dispositions:
        query = query.where(bounce.c.disposition.in_(which.dispositions))
    if which.kind is not None:
        query = query.where(bounce.c.kind == which.kind)
    return connection.execute(query).all()


def find(connection: sa.Connection, bounce_id: int) -> Any:
    """Return a bounce. Raises InputError if there is none."""
    row = connection.execute(sa.select(bounce).where(bounce.c.id == bounce_id)).one_or_none()
    if row is None:
        raise InputError(f"there is no bounce {bounce_id}; `mailbound bounce list` shows those there are")
    return row


def finding_of(row: Any) -> Finding:
    """Return what was found, as the table keeps it."""
    verdict = Verdict(Category(row.category), row.permanent, StatusCode.find(row.status), row.rule)
    return Finding(
        kind=Kind(row.kind),
        at=row.at,
        action=Action(row.action),
        verdict=verdict,
        evidence=Evidence(row.evidence),
        delivery_id=row.delivery_id,
        attempt=row.attempt,
        recipient_id=row.recipient_id,
        store_id=row.store_id,
        mail_id=row.mail_id,
        addresses=(row.address,),
        rule_version=row.rule_version,
    )

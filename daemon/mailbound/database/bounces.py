"""Bounces: what was said about a delivery, what the policy made of it, and its effects, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import address as addresses
from mailbound import guard, policy, tokens
from mailbound.config import Policy
from mailbound.database import activities, changes, effects, histories, holds
from mailbound.database.changes import Cause
from mailbound.database.holds import Hold
from mailbound.database.tables import activity as activity_table
from mailbound.database.tables import address, bounce, delivery, run
from mailbound.errors import InputError
from mailbound.guard import Traits
from mailbound.lifecycle import DeliveryState, RunState
from mailbound.model import (
    Action,
    Category,
    Disposition,
    Evidence,
    Kind,
    Verdict,
)
from mailbound.policy import Decision, History, Sign
from mailbound.status import StatusCode


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a mail or a reply says about one recipient, correlated but not yet judged."""

    kind: Kind
    at: datetime
    action: Action
    verdict: Verdict
    evidence: Evidence
    delivery_id: int | None = None
    minted: tuple[int, int] | None = None  # key id and day of the token; None for direct evidence
    attempt: int = 0
    recipient_id: int | None = None  # of an unsubscribe token, which names no delivery
    store_id: int | None = None
    mail_id: int | None = None
    addresses: Sequence[str] = ()  # as the report names the recipient: original, then final
    diagnostic: str = ""
    reporting_mta: str = ""
    remote_mta: str = ""
    rule_version: str = ""
    doubt: str = ""  # why it is unsigned


@dataclass(frozen=True, slots=True)
class Recorded:
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
    finding, target = _proven(connection, finding)
    hold = _hold(connection, finding, target)
    sign = replace(_sign(finding, target), crowded=hold is not None)
    decision = policy.decide(
        sign, _history(connection, finding, target, limits), now=finding.at, limits=limits
    )
    bounce_id = _insert(connection, finding, target, sign, decision, hold=hold)
    if bounce_id is None:
        return None
    state = effects.write(
        connection, bounce_id, finding, decision, target, cause=cause or Cause(finding.kind)
    )
    return Recorded(bounce_id, decision, finding, state, effects.speak_of_erased(connection, finding, target))


def judge_again(
    connection: sa.Connection, bounce_id: int, finding: Finding, *, limits: Policy, cause: Cause | None = None
) -> Decision:
    """Give a recorded bounce, whose effects were none or are undone, the verdict of `finding` and what follows.

    It is not held again: whoever asks has looked at it.
    """
    finding, target = _proven(connection, finding)
    sign = replace(_sign(finding, target), run_halted=False)
    decision = policy.decide(
        sign, _history(connection, finding, target, limits), now=finding.at, limits=limits
    )
    values = {**_judged(finding, sign), "disposition": decision.disposition, "why": decision.why}
    connection.execute(bounce.update().where(bounce.c.id == bounce_id).values(values))
    effects.write(connection, bounce_id, finding, decision, target, cause=cause or Cause(finding.kind))
    return decision


def consider(connection: sa.Connection, finding: Finding, *, limits: Policy) -> Decision:
    """Return what `record` would decide, and write nothing."""
    finding, target = _proven(connection, finding)
    history = _history(connection, finding, target, limits)
    return policy.decide(_sign(finding, target), history, now=finding.at, limits=limits)


def doubt(connection: sa.Connection, finding: Finding) -> str:
    """Return why a token that is genuine is no evidence for its delivery; "" if it is, or if there is none."""
    return _doubt(_named(connection, finding), finding) if finding.delivery_id is not None else ""


def _proven(connection: sa.Connection, finding: Finding) -> tuple[Finding, Any | None]:
    """Return a finding with the delivery that it speaks of; one whose evidence does not hold speaks of none."""
    row = _named(connection, finding) if finding.delivery_id is not None else None
    why = _doubt(row, finding) if finding.delivery_id is not None else finding.doubt
    if finding.recipient_id is None and (why or row is None):
        return replace(finding, evidence=Evidence.UNSIGNED, delivery_id=None, doubt=why), None
    return finding, row


def _named(connection: sa.Connection, finding: Finding) -> Any | None:
    query = (
        sa.select(
            delivery,
            run.c.state.label("run_state"),
            run.c.key_id,
            run.c.day,
            activity_table.c.store_id,
            address.c.key,
            holds.are_open(activity_table.c.store_id).label("guarded"),
        )
        .join(run, run.c.id == delivery.c.run_id)
        .join(activity_table, activity_table.c.id == run.c.activity_id)
        .join(address, address.c.id == delivery.c.address_id)
        .where(delivery.c.id == finding.delivery_id)
    )
    return connection.execute(query).one_or_none()


def _doubt(row: Any | None, finding: Finding) -> str:
    if row is None:
        return "there is no such delivery any more"
    if finding.evidence is Evidence.DIRECT:
        return ""
    if finding.store_id is not None and finding.store_id != row.store_id:
        return "the delivery is of another store than the mailbox"
    if row.marked_at is None:
        return "the delivery was never sent"
    if finding.at - row.marked_at > tokens.VALID_FOR:
        return f"the delivery was sent more than {tokens.VALID_FOR.days} days before"
    # After a restore from a backup, delivery ids are given anew: an old token must not speak of a new delivery.
    if finding.minted is not None and finding.minted != (row.key_id, row.day):
        return "the token is of another delivery that had the same number, before a restore"
    return ""


def _sign(finding: Finding, target: Any | None) -> Sign:
    own = (
        target is None or not finding.addresses or any(_same(text, target.key) for text in finding.addresses)
    )
    return Sign(
        action=finding.action,
        verdict=finding.verdict,
        evidence=finding.evidence,
        own_address=own,
        marked_at=target.marked_at if target and finding.evidence is Evidence.SIGNED else None,
        doubt=finding.doubt,
        run_halted=target is not None and target.run_state == RunState.HALTED,
    )


def _hold(connection: sa.Connection, finding: Finding, target: Any | None) -> Hold | None:
    """Return the hold that a finding belongs to: of bounces that are so many and so alike that nobody believes them."""
    verdict = finding.verdict
    deadly = finding.action is Action.FAILED and verdict.permanent and verdict.category in guard.DEADLY
    if target is None or not target.guarded or not deadly:
        return None
    domain = target.key.rpartition("@")[2]
    traits = Traits(target.run_id, _gist(finding, target.key), finding.remote_mta, domain)
    return holds.first_fitting(holds.open_ones(connection, store_id=target.store_id), traits)


def _gist(finding: Finding, address: str) -> str:
    """Return what a finding says of anybody; where it has no words, its status code."""
    status = finding.verdict.status
    return guard.gist(finding.diagnostic, address) or (f"status {status}" if status else "")


def _same(text: str, key: str) -> bool:
    return addresses.same(text, key)


def _history(connection: sa.Connection, finding: Finding, target: Any | None, limits: Policy) -> History:
    if target is None:
        return History()
    return histories.of_address(
        connection,
        target.address_id,
        delivery_id=target.id,
        at=finding.at,
        quiet_before=finding.at - limits.quiet_success,
    )


def _insert(
    connection: sa.Connection,
    finding: Finding,
    target: Any | None,
    sign: Sign,
    decision: Decision,
    *,
    hold: Hold | None,
) -> int | None:
    named = finding.addresses[-1] if finding.addresses else (target.key if target else "")
    values = {
        "at": finding.at,
        "mail_id": finding.mail_id,
        "store_id": target.store_id if target else finding.store_id,
        "run_id": target.run_id if target else None,
        "delivery_id": target.id if target else None,
        "attempt": finding.attempt,
        "recipient_id": target.recipient_id if target else finding.recipient_id,
        "address_id": target.address_id if target else None,
        "domain_id": target.domain_id if target else None,
        "address": named[:320],
        "evidence": finding.evidence,
        "diagnostic": finding.diagnostic[:1024],
        "reporting_mta": finding.reporting_mta[:255],
        "remote_mta": finding.remote_mta[:255],
        "disposition": decision.disposition,
        "why": decision.why,
        "gist": _gist(finding, target.key if target else named),
        "hold_id": hold.id if hold and decision.disposition is Disposition.HELD else None,
        **_judged(finding, sign),
    }
    insert = changes.upsert(connection, bounce).values(values).on_conflict_do_nothing().returning(bounce.c.id)
    return connection.execute(insert).scalar_one_or_none()


def _judged(finding: Finding, sign: Sign) -> dict[str, Any]:
    """Return the columns that a verdict decides."""
    verdict = finding.verdict
    return {
        "kind": finding.kind,
        "action": finding.action,
        "status": str(verdict.status) if verdict.status else "",
        "status_class": _status_class(finding),
        "category": verdict.category if sign.own_address else Category.UNCLEAR,
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
    """Which bounces are meant: all, or only those of an activity, of a run, of a hold, or that became something."""

    activity: str | None = None
    run: int | None = None
    hold: int | None = None
    dispositions: tuple[Disposition, ...] = ()


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

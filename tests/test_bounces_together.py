"""Bounces that are recorded together have the effects that they have one by one, whomever they share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from mailbound.database import bounces, tables
from mailbound.database.bounces import Finding
from mailbound.model import Action, Category, Evidence, Kind, Verdict
from world import DAY, NOW, Limits, World, world

_SEEDS = 12
_FINDINGS = 14

_VERDICTS = [
    Verdict(Category.NO_SUCH_USER, permanent=True, status=None, rule="test"),
    Verdict(Category.NO_SUCH_DOMAIN, permanent=True, status=None, rule="test"),
    Verdict(Category.UNCLEAR, permanent=True, status=None, rule="test"),
    Verdict(Category.MAILBOX_FULL, permanent=False, status=None, rule="test"),
    Verdict(Category.POLICY, permanent=True, status=None, rule="test"),
]
_KINDS = {
    Action.FAILED: Kind.BOUNCE,
    Action.DELAYED: Kind.DELAY,
    Action.DELIVERED: Kind.SUCCESS,
    Action.COMPLAINED: Kind.COMPLAINT,
}
_OFTEN = [Action.FAILED] * 6 + [Action.DELAYED, Action.DELIVERED, Action.COMPLAINED]


def test_together_they_have_the_effects_that_they_have_one_by_one(database_url: str) -> None:
    with world(database_url) as here:
        for name, address in {"anna": "a", "bert": "a", "carl": "c", "dora": "d", "emil": "e"}.items():
            here.person(name, address=f"{address}@example.com")
        deliveries = [
            *here.send(here.sending(here.activity("spring"))).values(),
            *here.send(here.sending(here.activity("summer"), at=NOW + DAY), at=NOW + DAY).values(),
        ]
        for seed in range(_SEEDS):
            findings = _findings(here, deliveries, random.Random(seed))
            seen = []
            for together in (False, True):
                undone = here.connection.begin_nested()
                _record(here, findings, together=together)
                seen.append(_everything(here))
                undone.rollback()
            assert seen[0] == seen[1], f"seed {seed}"


def _record(here: World, findings: Sequence[Finding], *, together: bool) -> None:
    if together:
        bounces.record_all(here.connection, findings, limits=Limits())
    else:
        for finding in findings:
            bounces.record(here.connection, finding, limits=Limits())


def _findings(here: World, deliveries: Sequence[int], dice: random.Random) -> list[Finding]:
    """Return what might come in a few days; now and then the same thing twice, and something without a token."""
    people = here.connection.execute(sa.select(tables.recipient.c.id)).scalars().all()
    found: list[Finding] = []
    at = NOW + 2 * DAY
    for _ in range(_FINDINGS):
        at += dice.choice([timedelta(0)] * 4 + [DAY])
        common: dict[str, Any] = {
            "at": at,
            "verdict": dice.choice(_VERDICTS),
            "store_id": here.stores["main"],
        }
        action = dice.choice(_OFTEN)
        match dice.randrange(8):
            case 0:
                evidence, kind = Evidence.SIGNED, Kind.UNSUBSCRIBE
                whose = {"action": Action.UNSUBSCRIBED, "recipient_id": dice.choice(people)}
            case 1:
                evidence, kind, whose = Evidence.UNSIGNED, _KINDS[action], {"action": action}
            case _:
                evidence, kind = Evidence.SIGNED, _KINDS[action]
                whose = {"action": action, "delivery_id": dice.choice(deliveries), "attempt": 1}
        found.append(Finding(kind=kind, evidence=evidence, **common, **whose))
    return found


def _everything(here: World) -> list[Any]:
    """Return what stands in the tables, without the numbers of rows."""
    told_by = {"delivery_id", "action", "attempt", "recipient_id", "at"}
    named = {
        row.id: tuple(getattr(row, name) for name in sorted(told_by))
        for row in here.connection.execute(sa.select(tables.bounce))
    }
    return [
        Counter(
            tuple(
                named.get(value) if name == "bounce_id" else value
                for name, value in row._mapping.items()
                if name != "id" or table is tables.delivery
            )
            for row in here.connection.execute(sa.select(table))
        )
        for table in (
            tables.bounce,
            tables.change,
            tables.opt_in,
            tables.recipient_status,
            tables.delivery,
            tables.tally,
        )
    ]

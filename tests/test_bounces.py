"""Bounces with their effects: one transaction, once, and only on whom the evidence speaks of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from mailbound.address import normalise
from mailbound.database import (
    bounces,
    deliveries,
    erasing,
    halting,
    imports,
    recovery,
    runs,
    tables,
    tally,
)
from mailbound.database.bounces import Finding, Recorded
from mailbound.database.deliveries import Settlement
from mailbound.lifecycle import DeliveryEvent, RunEvent, RunState
from mailbound.model import Action, Category, Disposition, Evidence, Kind, Source, Verdict
from mailbound.status import StatusCode
from world import DAY, NODE, NOW, Limits, World, mark, world

DEAD = Verdict(Category.NO_SUCH_USER, permanent=True, status=StatusCode(5, 1, 1), rule="test")
FULL = Verdict(Category.MAILBOX_FULL, permanent=False, status=StatusCode(5, 2, 2), rule="test")
BLOCKED = Verdict(Category.BLOCKED, permanent=True, status=StatusCode(5, 7, 1), rule="test")


def record(here: World, delivery_id: int | None, verdict: Verdict = DEAD, **finding: Any) -> Recorded | None:
    details: dict[str, Any] = {
        "kind": Kind.BOUNCE,
        "at": NOW,
        "action": Action.FAILED,
        "evidence": Evidence.SIGNED,
        "attempt": 1,
        "store_id": here.stores["main"],
        **finding,
    }
    found = Finding(verdict=verdict, delivery_id=delivery_id, **details)
    return bounces.record(here.connection, found, limits=Limits())


def wishes(here: World) -> dict[tuple[str, str], str]:
    query = (
        sa.select(
            tables.recipient.c.external_id,
            tables.store.c.name,
            tables.opt_in.c.receive,
            tables.opt_in.c.source,
        )
        .join(tables.opt_in, tables.opt_in.c.recipient_id == tables.recipient.c.id)
        .join(tables.store, tables.store.c.id == tables.opt_in.c.store_id)
    )
    return {
        (who, store): f"{'in' if receive else 'out'} {source}"
        for who, store, receive, source in here.connection.execute(query)
    }


def statuses(here: World) -> dict[str, str]:
    query = sa.select(tables.address.c.key, tables.recipient_status.c.status).join(
        tables.recipient_status, tables.recipient_status.c.address_id == tables.address.c.id
    )
    return {row.key: row.status for row in here.connection.execute(query)}


def move(here: World, name: str, address: str, *, now: datetime) -> None:
    """Let an import bring another address of somebody."""
    people = [imports.Person(name, normalise(address))]
    imports.Import(store_id=here.stores["main"], who="test", now=now).apply(here.connection, people)


def ledger(here: World) -> list[tuple[str, str, str, str]]:
    change = tables.change
    query = sa.select(change.c.kind, change.c.before, change.c.after, change.c.cause).where(
        change.c.cause != "command"
    )
    return [tuple(row) for row in here.connection.execute(query.order_by(change.c.id))]


def test_a_hard_bounce_has_all_its_effects_and_its_ledger(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        sent = here.send(run_id)
        recorded = record(here, sent["anna"], addresses=("anna@example.org",))
        assert recorded is not None
        assert recorded.decision.disposition is Disposition.APPLIED
        assert here.states(run_id) == {"anna": "bounced"}
        assert statuses(here) == {"anna@example.org": "undeliverable"}
        assert wishes(here) == {("anna", "main"): "out hard_bounce"}
        assert ledger(here) == [
            ("status", "deliverable", "undeliverable (no-such-user)", "bounce"),
            ("opt_in", "in (import)", "out (hard_bounce)", "bounce"),
        ]
        assert tally.of_run(here.connection, run_id) == {"bounced": 1}
        again = here.sending(here.activity("summer"))
        assert here.states(again) == {"anna": "skipped undeliverable"}


def test_the_same_report_counts_once(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        sent = here.send(here.sending())
        assert record(here, sent["anna"]) is not None
        assert record(here, sent["anna"]) is None
        assert len(ledger(here)) == 2


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param({"evidence": Evidence.UNSIGNED, "delivery_id": None}, id="no token"),
        pytest.param({"store_id": 2}, id="a token of another store"),
        pytest.param({"at": NOW + 31 * DAY}, id="a token that is too old"),
        pytest.param({"delivery_id": 999_999}, id="a delivery that never was"),
    ],
)
def test_a_forged_report_changes_nothing(database_url: str, forged: dict[str, Any]) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        sent = here.send(run_id)
        details = {"delivery_id": sent["anna"], "addresses": ("anna@example.org",), **forged}
        recorded = record(here, details.pop("delivery_id"), **details)
        assert recorded is not None
        assert recorded.decision.disposition is Disposition.QUARANTINED
        assert here.states(run_id) == {"anna": "accepted"}
        assert (statuses(here), ledger(here)) == ({}, [])
        assert wishes(here) == {("anna", "main"): "in import"}


def test_a_token_for_a_delivery_that_was_never_sent_is_worth_nothing(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        (claimed,) = here.claim(here.sending())
        recorded = record(here, claimed.id)
        assert recorded is not None
        assert recorded.decision.disposition is Disposition.QUARANTINED


def test_a_report_about_somebody_else_touches_neither(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        here.person("victim")
        run_id = here.sending()
        sent = here.send(run_id)
        record(here, sent["anna"], addresses=("victim@example.org",))
        assert statuses(here) == {}
        assert here.states(run_id) == {"anna": "bounced", "victim": "accepted"}
        assert set(wishes(here).values()) == {"in import"}


def test_six_days_of_a_full_mailbox_suspend_and_an_arrival_forgets(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        for day in range(6):
            at = NOW + day * DAY
            sent = here.send(here.sending(here.activity(f"day-{day}", starts_at=at), at=at), at=at)
            record(here, sent["anna"], FULL, at=at)
            assert statuses(here) == ({"anna@example.org": "suspended"} if day == 5 else {})
        arrived = {"kind": Kind.SUCCESS, "action": Action.DELIVERED, "at": NOW + 6 * DAY}
        record(here, sent["anna"], Verdict(Category.UNCLEAR, False, None, "test"), **arrived)
        assert statuses(here) == {"anna@example.org": "deliverable"}
        assert set(wishes(here).values()) == {"in import"}


def test_a_quiet_acceptance_forgets_what_came_before(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        for day in (0, 1, 2, 3, 4):
            at = NOW + day * DAY
            record(
                here, here.send(here.sending(here.activity(f"day-{day}"), at=at), at=at)["anna"], FULL, at=at
            )
        quiet = NOW + 5 * DAY
        here.send(here.sending(here.activity("quiet"), at=quiet), at=quiet)
        last = NOW + 11 * DAY
        recorded = record(
            here, here.send(here.sending(here.activity("last"), at=last), at=last)["anna"], FULL, at=last
        )
        assert recorded is not None
        assert recorded.decision.why == "soft: 1 of 5"


def test_a_block_is_noted_and_nobody_is_blamed(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        recorded = record(here, here.send(run_id)["anna"], BLOCKED)
        assert recorded is not None
        assert recorded.decision.disposition is Disposition.NOTED
        assert (statuses(here), ledger(here)) == ({}, [])
        assert halting.blame(here.connection, run_id) == 1


def test_a_complaint_counts_for_one_store_only(database_url: str) -> None:
    with world(database_url) as here:
        anna = here.person("anna")
        here.wish(anna, store="other", receive=True)
        sent = here.send(here.sending())
        record(here, sent["anna"], kind=Kind.COMPLAINT, action=Action.COMPLAINED)
        assert wishes(here) == {("anna", "main"): "out complaint", ("anna", "other"): "in import"}
        assert statuses(here) == {}


def test_an_unsubscribe_counts_for_all_who_share_the_address(database_url: str) -> None:
    with world(database_url) as here:
        anna = here.person("anna", address="family@example.org")
        here.person("bert", address="family@example.org")
        here.person("carl")
        details = {"kind": Kind.UNSUBSCRIBE, "action": Action.UNSUBSCRIBED, "recipient_id": anna}
        record(here, None, **details)
        assert wishes(here) == {
            ("anna", "main"): "out unsubscribe",
            ("bert", "main"): "out unsubscribe",
            ("carl", "main"): "in import",
        }


def test_a_hard_bounce_spares_the_wish_of_who_shares_the_address(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna", address="family@example.org")
        here.person("bert", address="family@example.org")
        record(here, here.send(here.sending())["anna"])
        assert wishes(here) == {("anna", "main"): "out hard_bounce", ("bert", "main"): "in import"}
        assert here.states(here.sending(here.activity("summer"))) == {
            "anna": "skipped undeliverable",
            "bert": "skipped undeliverable",
        }


def test_a_hard_bounce_takes_no_wish_that_is_not_there(database_url: str) -> None:
    """Or a change of address would give back what an unsubscribe took."""
    with world(database_url) as here:
        anna, bert = here.person("anna"), here.person("bert", opted_in=None)
        here.wish(bert, store="*", receive=True)
        sent = here.send(here.sending())
        here.wish(anna, receive=False, source=Source.UNSUBSCRIBE)
        here.wish(bert, store="*", receive=False, source=Source.USER)
        for name in ("anna", "bert"):
            record(here, sent[name])
        assert set(statuses(here).values()) == {"undeliverable"}
        assert wishes(here) == {("anna", "main"): "out unsubscribe", ("bert", "*"): "out user"}


def test_a_hard_bounce_of_an_old_address_spares_the_wish_for_the_new_one(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        sent = here.send(here.sending())
        move(here, "anna", "new@example.org", now=NOW)
        record(here, sent["anna"])
        assert statuses(here) == {"anna@example.org": "undeliverable"}
        assert wishes(here) == {("anna", "main"): "in import"}


def test_a_report_about_an_earlier_attempt_moves_no_later_one(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        (first,) = here.claim(run_id)
        mark(here.connection, [first.id], node_id=NODE, now=NOW)
        lost = Settlement(first.id, DeliveryEvent.LOSE, attempt=1)
        deliveries.settle(here.connection, [lost], node_id=NODE, now=NOW)
        recovery.resend(here.connection, first.id, now=NOW)
        here.send(run_id)
        recorded = record(here, first.id, FULL, attempt=1)
        assert recorded is not None
        assert here.states(run_id) == {"anna": "accepted"}, "the second attempt is still on its way"
        record(here, first.id, FULL, attempt=2)
        assert here.states(run_id) == {"anna": "bounced"}


def test_what_was_sent_before_a_new_consent_changes_nothing(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        old = here.send(here.sending())
        consent = NOW + DAY
        people = [imports.Person("anna", normalise("anna@example.org"), receive=True, consent_at=consent)]
        imports.Import(store_id=here.stores["main"], who="test", now=consent).apply(here.connection, people)
        recorded = record(here, old["anna"], at=consent + DAY)
        assert recorded is not None
        assert recorded.decision.why == "it was sent before the recipient opted in anew"
        assert (statuses(here), wishes(here)) == ({}, {("anna", "main"): "in user"})
        later = consent + 2 * DAY
        new = here.send(here.sending(here.activity("new"), at=later), at=later)
        record(here, new["anna"], at=later)
        assert statuses(here) == {"anna@example.org": "undeliverable"}


def test_what_failed_before_a_new_consent_is_forgotten(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        unclear = Verdict(Category.UNCLEAR, permanent=True, status=None, rule="test")
        for day in range(4):
            at = NOW + day * DAY
            if day == 2:
                people = [imports.Person("anna", normalise("anna@example.org"), receive=True, consent_at=at)]
                imports.Import(store_id=here.stores["main"], who="test", now=at).apply(
                    here.connection, people
                )
            sent = here.send(here.sending(here.activity(f"day-{day}"), at=at), at=at)
            record(here, sent["anna"], unclear, at=at)
        assert statuses(here) == {}, "two days of failures since, of three"


def test_a_failure_behind_an_arrival_counts_for_nothing_later(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        for day in range(3):
            at = NOW + day * DAY
            sent = here.send(here.sending(here.activity(f"day-{day}"), at=at), at=at)
            record(here, sent["anna"], at=at, kind=Kind.SUCCESS, action=Action.EXPANDED)
            record(here, sent["anna"], at=at, addresses=("member@example.net",))
        last = NOW + 3 * DAY
        sent = here.send(here.sending(here.activity("last"), at=last), at=last)
        record(here, sent["anna"], at=last, addresses=("member@example.net",))
        assert statuses(here) == {}


@pytest.mark.parametrize(
    ("said", "score"),
    [
        pytest.param(None, 1, id="nothing was heard"),
        pytest.param({"kind": Kind.DELAY, "action": Action.DELAYED}, 3, id="it was delayed"),
        pytest.param({"kind": Kind.BOUNCE, "action": Action.FAILED}, 3, id="it came back"),
    ],
)
def test_what_was_accepted_is_a_success_only_if_nothing_was_heard(
    database_url: str, said: dict[str, Any] | None, score: int
) -> None:
    with world(database_url) as here:
        here.person("anna")

        def send(day: int) -> int:
            at = NOW + day * DAY
            return here.send(here.sending(here.activity(f"day-{day}"), at=at), at=at)["anna"]

        for day in (0, 1):
            record(here, send(day), FULL, at=NOW + day * DAY)
        quiet = send(2)
        if said is not None:
            record(here, quiet, BLOCKED, at=NOW + 2 * DAY, **said)
        move(here, "anna", "new@example.org", now=NOW + 3 * DAY)
        move(here, "anna", "anna@example.org", now=NOW + 4 * DAY)
        recorded = record(here, send(8), FULL, at=NOW + 8 * DAY)
        assert recorded is not None
        assert recorded.decision.why == f"soft: {score} of 5"


def test_the_success_of_who_left_an_address_still_counts_for_it(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna", address="family@example.org")
        record(here, here.send(here.sending())["anna"], FULL)
        later = NOW + DAY
        here.send(here.sending(here.activity("quiet"), at=later), at=later)
        move(here, "anna", "new@example.org", now=later + DAY)
        here.person("bert", address="family@example.org")
        last = later + 6 * DAY
        sent = here.send(here.sending(here.activity("last"), at=last), at=last)
        recorded = record(here, sent["bert"], FULL, at=last)
        assert recorded is not None
        assert recorded.decision.why == "soft: 1 of 5"


def test_a_report_about_an_erased_person_says_that_it_is(database_url: str) -> None:
    with world(database_url) as here:
        anna = here.person("anna")
        sent = here.send(here.sending())
        erasing.erase(here.connection, anna, who="test", now=NOW)
        recorded = record(here, sent["anna"], addresses=("anna@example.org",), diagnostic="550 anna is gone")
        assert recorded is not None
        assert recorded.erased
        erasing.forget_late(here.connection, recorded.bounce_id)
        row = here.connection.execute(sa.select(tables.bounce)).one()
        assert (row.address, row.diagnostic, row.category) == ("", "", "unclear")


def test_what_a_halted_run_holds_is_decided_anew_when_released(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        sent = here.send(run_id)
        runs.move(here.connection, run_id, RunEvent.HALT, now=NOW)
        recorded = record(here, sent["anna"], addresses=("anna@example.org",))
        assert recorded is not None
        assert recorded.decision.disposition is Disposition.HELD
        assert (statuses(here), ledger(here)) == ({}, [])
        assert runs.move(here.connection, run_id, RunEvent.RESUME, now=NOW) is RunState.SENDING
        assert halting.release(here.connection, run_id, limits=Limits()) == 1
        assert statuses(here) == {"anna@example.org": "undeliverable"}
        assert wishes(here) == {("anna", "main"): f"out {Source.HARD_BOUNCE}"}


def test_the_breaker_forgets_what_was_pardoned(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        here.person("bert")
        run_id = here.sending()
        sent = here.send(run_id)
        record(here, sent["anna"], BLOCKED)
        assert halting.blame(here.connection, run_id) == 1
        halting.pardon(here.connection, run_id)
        assert halting.blame(here.connection, run_id) == 0
        record(here, sent["bert"], BLOCKED)
        assert halting.blame(here.connection, run_id) == 1

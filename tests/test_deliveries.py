"""Deliveries: claimed, marked, settled, and what a crash leaves of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from mailbound.database import changes, claims, deliveries, recovery, remaining, runs, tables, tally
from mailbound.database.deliveries import Settlement
from mailbound.lifecycle import DeliveryEvent, DeliveryState, RunEvent
from mailbound.model import RecipientStatus
from world import COMMAND, DAY, NODE, NOW, World, mark, world


def _address_of(here: World, recipient_id: int) -> int:
    found = sa.select(tables.recipient.c.address_id).where(tables.recipient.c.id == recipient_id)
    return int(here.connection.execute(found).scalar_one())


def test_a_claim_gives_the_recipient_as_they_are_now(database_url: str) -> None:
    with world(database_url) as here:
        anna = here.person("anna", lifetime_value=12)
        run_id = here.sending()
        here.connection.execute(
            tables.recipient.update()
            .where(tables.recipient.c.id == anna)
            .values(attributes={"lifetime_value": 13})
        )
        (claimed,) = here.claim(run_id)
        assert (claimed.external_id, claimed.attempt, claimed.domain) == ("anna", 1, "example.org")
        assert claimed.attributes == {"lifetime_value": 13}
        assert here.claim(run_id) == []


def test_a_claim_skips_who_changed_their_mind(database_url: str) -> None:
    with world(database_url) as here:
        anna, bert = here.person("anna"), here.person("bert")
        run_id = here.sending()
        here.wish(anna, receive=False)
        changes.set_status(
            here.connection,
            address_id=_address_of(here, bert),
            status=RecipientStatus.UNDELIVERABLE,
            cause=COMMAND,
            now=NOW,
        )
        assert here.claim(run_id) == []
        assert here.states(run_id) == {"anna": "skipped not-opted-in", "bert": "skipped undeliverable"}
        assert tally.differences(here.connection) == []


def test_a_mark_is_refused_to_whoever_changed_in_the_meantime(database_url: str) -> None:
    with world(database_url) as here:
        out, dead, moved, fine = (here.person(name) for name in ("out", "dead", "moved", "fine"))
        run_id = here.sending()
        ids = {each.external_id: each.id for each in here.claim(run_id)}
        here.wish(out, receive=False)
        changes.set_status(
            here.connection,
            address_id=_address_of(here, dead),
            status=RecipientStatus.UNDELIVERABLE,
            cause=COMMAND,
            now=NOW,
        )
        elsewhere = _address_of(here, here.person("other", address="new@example.net"))
        here.connection.execute(
            tables.recipient.update().where(tables.recipient.c.id == moved).values(address_id=elsewhere)
        )
        marked = mark(here.connection, list(ids.values()), node_id=NODE, now=NOW)
        assert marked == {ids["fine"]}
        store_id = here.stores["main"]
        events = {
            name: claims.withdrawn(here.connection, ids[name], store_id, now=NOW)
            for name in ("out", "dead", "moved")
        }
        assert (events["out"].event, events["out"].reason) == (DeliveryEvent.SKIP, "not-opted-in")
        assert (events["dead"].event, events["dead"].reason) == (DeliveryEvent.SKIP, "undeliverable")
        assert events["moved"].event is DeliveryEvent.RELEASE
        deliveries.settle(here.connection, list(events.values()), node_id=NODE, now=NOW)
        assert [each.external_id for each in here.claim(run_id)] == ["moved"]
        assert tally.differences(here.connection) == []
        assert fine


@pytest.mark.parametrize("event", [RunEvent.PAUSE, RunEvent.CANCEL, RunEvent.HALT])
def test_a_mark_is_refused_once_the_run_no_longer_sends(database_url: str, event: RunEvent) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        (claimed,) = here.claim(run_id)
        runs.move(here.connection, run_id, event, now=NOW)
        assert mark(here.connection, [claimed.id], node_id=NODE, now=NOW) == set()


def test_a_mark_is_refused_to_a_node_that_did_not_claim(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        (claimed,) = here.claim(here.sending())
        assert mark(here.connection, [claimed.id], node_id=NODE + 1, now=NOW) == set()
        assert mark(here.connection, [claimed.id], node_id=NODE, now=NOW) == {claimed.id}
        assert mark(here.connection, [claimed.id], node_id=NODE, now=NOW) == set(), "only once"


def test_a_settlement_of_a_lost_claim_is_left_alone(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        (claimed,) = here.claim(run_id)
        late = [Settlement(claimed.id, DeliveryEvent.RELEASE)]
        assert deliveries.settle(here.connection, late, node_id=NODE + 1, now=NOW) == {}
        assert here.states(run_id) == {"anna": "claimed"}


def test_a_deferred_delivery_comes_due_again_with_the_next_attempt(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        (claimed,) = here.claim(run_id)
        deferred = Settlement(
            claimed.id, DeliveryEvent.DEFER, attempt=1, next_attempt_at=NOW + DAY, reply="450 4.2.0 Later"
        )
        deliveries.settle(here.connection, [deferred], node_id=NODE, now=NOW)
        assert here.claim(run_id) == []
        assert remaining.next_due(here.connection, run_id) == NOW + DAY
        (again,) = here.claim(run_id, at=NOW + DAY)
        assert again.attempt == 2


def test_a_crash_returns_claims_and_doubts_what_was_marked(database_url: str) -> None:
    with world(database_url) as here:
        for name in ("claimed", "marked"):
            here.person(name)
        run_id = here.sending(here.activity(in_doubt="hold"))
        ids = {each.external_id: each.id for each in here.claim(run_id)}
        mark(here.connection, [ids["marked"]], node_id=NODE, now=NOW)
        counts = recovery.recover(here.connection, [NODE], now=NOW)
        assert counts == {DeliveryState.QUEUED: 1, DeliveryState.UNKNOWN: 1}
        assert here.states(run_id) == {"claimed": "queued", "marked": "unknown"}
        assert tally.of_run(here.connection, run_id) == {"open": 1, "unknown": 1}


def test_a_delivery_in_doubt_is_sent_again_if_the_activity_wants_it(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending(here.activity(in_doubt="resend"))
        (claimed,) = here.claim(run_id)
        mark(here.connection, [claimed.id], node_id=NODE, now=NOW)
        recovery.recover(here.connection, [NODE], now=NOW)
        (again,) = here.claim(run_id)
        assert (again.id, again.attempt) == (claimed.id, 2)


def test_a_cancelled_run_is_swept_in_steps(database_url: str) -> None:
    with world(database_url) as here:
        for number in range(5):
            here.person(f"person-{number}")
        run_id = here.sending()
        runs.move(here.connection, run_id, RunEvent.CANCEL, now=NOW)
        swept = []
        while runs.with_leftovers(here.connection):
            swept.append(
                remaining.sweep(
                    here.connection, run_id, DeliveryEvent.CANCEL, now=NOW, reason="cancelled", limit=2
                )
            )
        assert swept == [2, 2, 1]
        assert tally.of_run(here.connection, run_id) == {"cancelled": 5}
        assert not remaining.any_open(here.connection, run_id)


def test_a_late_acceptance_keeps_what_a_report_said(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        (claimed,) = here.claim(run_id)
        mark(here.connection, [claimed.id], node_id=NODE, now=NOW)
        told = deliveries.Told(claimed.id, DeliveryEvent.REPORT_FAILED, "no-such-user", "5.1.1")
        deliveries.report(here.connection, [told], now=NOW)
        deliveries.settle(
            here.connection,
            [Settlement(claimed.id, DeliveryEvent.ACCEPT, reply="250 Ok")],
            node_id=NODE,
            now=NOW,
        )
        assert here.states(run_id) == {"anna": "bounced"}
        assert tally.differences(here.connection) == []


@pytest.mark.parametrize(
    ("paced", "taken"),
    [
        pytest.param(0, 0, id="nobody has a turn"),
        pytest.param(1, 1, id="one has"),
        pytest.param(3, 2, id="more than half of what is taken"),
        pytest.param(8, 4, id="all have"),
    ],
)
def test_whose_turn_has_come_gets_up_to_half_though_others_wait_longer(
    database_url: str, paced: int, taken: int
) -> None:
    turn, later = NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)
    with world(database_url) as here:
        for number in range(8):
            here.person(f"person-{number}")
        run_id = here.sending()
        ids = [each.id for each in here.claim(run_id)]
        given_back = [
            Settlement(number, DeliveryEvent.RELEASE, next_attempt_at=turn, reason=deliveries.PACED)
            for number in ids[8 - paced :]
        ] + [Settlement(number, DeliveryEvent.RELEASE) for number in ids[: 8 - paced]]
        deliveries.settle(here.connection, given_back, node_id=NODE, now=NOW)
        slots = [each.slot_at for each in here.claim(run_id, limit=4, at=later)]
        assert (len(slots), slots.count(turn)) == (4, taken)
        assert len(here.claim(run_id, at=later)) == 4, "and nobody is claimed twice or left out"


def test_a_turn_that_has_not_come_is_waited_for_though_there_is_room(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        (claimed,) = here.claim(run_id)
        paced = Settlement(
            claimed.id, DeliveryEvent.RELEASE, next_attempt_at=NOW + DAY, reason=deliveries.PACED
        )
        deliveries.settle(here.connection, [paced], node_id=NODE, now=NOW)
        assert here.claim(run_id, at=NOW + DAY / 2) == []


def test_a_delivery_that_waits_for_its_turn_keeps_it(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        (claimed,) = here.claim(run_id)
        assert claimed.slot_at is None
        paced = Settlement(
            claimed.id, DeliveryEvent.RELEASE, next_attempt_at=NOW + DAY, reason=deliveries.PACED
        )
        deliveries.settle(here.connection, [paced], node_id=NODE, now=NOW)
        assert here.claim(run_id) == []
        (again,) = here.claim(run_id, at=NOW + DAY)
        assert (again.slot_at, again.attempt) == (NOW + DAY, 1)
        mark(here.connection, [again.id], node_id=NODE, now=NOW + DAY)
        deliveries.settle(
            here.connection, [Settlement(again.id, DeliveryEvent.ACCEPT)], node_id=NODE, now=NOW
        )
        assert here.connection.execute(sa.select(tables.delivery.c.reason)).scalar_one() is None

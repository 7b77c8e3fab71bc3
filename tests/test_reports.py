"""The queries of the reports, on rows that are written as the daemon leaves them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mailbound import packing, tokens
from mailbound.database import raw_mail, schema
from mailbound.database.engine import Database
from mailbound.database.reports import activities, bounces, domains, sent, timeline
from mailbound.database.reports.bounces import By
from mailbound.database.reports.letters import Letters
from mailbound.database.tables import (
    change,
    delivery,
    inbound_mail,
    opt_in,
    recipient_status,
    run,
)
from mailbound.errors import InputError
from mailbound.lifecycle import DeliveryState, RunState
from rows import DAY, MINUTE, NOW, World


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Return an empty database of each engine; the tests share it, and each takes back what it wrote."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path_factory.mktemp('reports')}/mailbound.db"
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgres").database())
        opened = stack.enter_context(closing(Database(url)))
        schema.upgrade(opened)
        yield opened


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    with database.begin() as connection:
        savepoint = connection.begin_nested()
        yield World(connection)
        savepoint.rollback()


def of(groups: Sequence[bounces.Group]) -> dict[str, int]:
    return {group.key: group.bounces for group in groups}


# --- bounces ----------------------------------------------------------------------------------------------


def test_bounces_are_counted_by_reason_whether_refused_at_once_or_reported_later(world: World) -> None:
    run_id = world.run(world.activity("spring"))
    for state in (DeliveryState.ACCEPTED,) * 6 + (DeliveryState.BOUNCED,):
        row = world.deliver(run_id, state)
    world.say(row)
    world.say(world.deliver(run_id, DeliveryState.REFUSED), by_mail=False)
    world.say(row, category="mailbox-full", permanent=False)

    report = bounces.report(world.connection)

    first = report.groups[0]
    assert of(report.groups) == {"no-such-user": 2, "mailbox-full": 1}
    assert (first.refused, first.reported, first.permanent) == (1, 1, 2)
    assert (report.total.bounces, report.total.sent, report.total.share) == (3, 8, 3 / 8)


def test_what_came_back_without_being_a_failure_has_counts_of_its_own(world: World) -> None:
    row = world.deliver(world.run(world.activity("spring")), DeliveryState.ACCEPTED)
    for kind in ("delay", "delay", "success", "complaint", "unsubscribe"):
        world.say(row, kind)

    total = bounces.report(world.connection).total

    assert (total.delays, total.successes, total.complaints, total.unsubscribes, total.bounces) == (
        2,
        1,
        1,
        1,
        0,
    )


def test_quarantined_and_undone_reports_do_not_count_but_are_told_of(world: World) -> None:
    row = world.deliver(world.run(world.activity("spring")), DeliveryState.ACCEPTED)
    for disposition in ("applied", "noted", "held", "quarantined", "undone", "quarantined"):
        world.say(row, disposition=disposition)

    report = bounces.report(world.connection)

    assert report.total.bounces == 3
    assert report.dispositions == {"applied": 1, "noted": 1, "held": 1, "quarantined": 2, "undone": 1}


def test_what_a_person_has_to_read_is_counted_and_not_guessed_at(world: World) -> None:
    def arrive(kind: str, fetched_at: datetime = NOW, *, dropped: bool = False) -> None:
        mail_id = world.insert(
            inbound_mail,
            store_id=1,
            uid=f"{next(world.mail)}",
            sha256="0" * 64,
            size_octets=1,
            fetched_at=fetched_at,
            state="read",
            kind=kind,
        )
        if not dropped:
            raw_mail.keep(world.connection, [mail_id], [b""], packing.together([b""]))

    for kind in ("ordinary", "ordinary", "unrecognised", "auto-reply", "bounce"):
        arrive(kind)
    arrive("ordinary", NOW - 3 * DAY)
    arrive("unrecognised", dropped=True)
    for disposition in ("quarantined", "applied", "undone"):
        world.say(None, "unsubscribe", action="unsubscribed", disposition=disposition)
    activity_id = world.activity("spring")

    lately = bounces.report(world.connection, sent.Scope(NOW - DAY, None)).letters
    assert lately == Letters(wishes=1, ordinary=2, unrecognised=1)
    assert bounces.report(world.connection).letters == Letters(wishes=1, ordinary=3, unrecognised=1)
    assert bounces.report(world.connection, sent.Scope(None, activity_id)).letters is None


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        pytest.param(By.REASON, {"no-such-user": (2, None), "mailbox-full": (1, None)}, id="reason"),
        pytest.param(By.DOMAIN, {"example.com": (2, 3), "example.net": (1, 1)}, id="domain"),
        pytest.param(By.ACTIVITY, {"spring": (2, 3), "autumn": (1, 1), "winter": (0, 1)}, id="activity"),
        pytest.param(By.MTA, {"mx.example.com": (2, None), "relay.test": (1, None)}, id="mta"),
        pytest.param(By.DAY, {"2026-11-23": (2, 3), "2026-11-24": (1, 2)}, id="day"),
        pytest.param(By.STORE, {"main": (2, 4), "outlet": (1, 1)}, id="store"),
    ],
)
def test_bounces_are_grouped_with_what_was_sent(world: World, by: By, expected: dict[str, Any]) -> None:
    yesterday = NOW - DAY
    spring, autumn = world.run(world.activity("spring")), world.run(world.activity("autumn", "outlet"))
    for _ in range(2):
        row = world.deliver(spring, DeliveryState.BOUNCED, day=yesterday)
        world.say(row, at=yesterday, remote_mta="mx.example.com", reporting_mta="relay.test")
    world.deliver(spring, DeliveryState.ACCEPTED, day=yesterday)
    row = world.deliver(autumn, DeliveryState.REFUSED, at="example.net")
    world.say(row, by_mail=False, category="mailbox-full", reporting_mta="relay.test", store_id=2)
    world.deliver(world.run(world.activity("winter")), DeliveryState.ACCEPTED, at="example.org")

    report = bounces.report(world.connection, by=by)

    assert {group.key: (group.bounces, group.sent) for group in report.groups} == expected
    assert report.total.sent == 5
    assert report.others is None


def test_the_largest_groups_come_first_and_what_is_left_over_is_summed(world: World) -> None:
    run_id = world.run(world.activity("spring"))
    for number, count in enumerate((1, 3, 2)):
        for _ in range(count):
            world.say(world.deliver(run_id, DeliveryState.BOUNCED, at=f"d{number}.test"))

    report = bounces.report(world.connection, by=By.DOMAIN, limit=2)

    assert list(of(report.groups).items()) == [("d1.test", 3), ("d2.test", 2)]
    assert report.others is not None
    assert (report.others.bounces, report.others.permanent) == (1, 1)


def test_only_what_came_since_is_counted_and_what_was_sent_since(world: World) -> None:
    run_id = world.run(world.activity("spring"), NOW - 9 * DAY)
    for days in (0, 1, 8):
        row = world.deliver(run_id, DeliveryState.BOUNCED, day=NOW - days * DAY)
        world.say(row, at=NOW - days * DAY)

    total = bounces.report(world.connection, sent.Scope(sent.midnight(NOW - 7 * DAY))).total

    assert (total.bounces, total.sent) == (2, 2)


def test_a_period_that_begins_within_a_day_knows_no_share(world: World) -> None:
    world.say(world.deliver(world.run(world.activity("spring")), DeliveryState.BOUNCED))

    report = bounces.report(world.connection, sent.Scope(NOW - MINUTE), By.DOMAIN)

    assert (report.total.bounces, report.total.sent, report.total.share) == (1, None, None)
    assert report.groups[0].sent is None


def test_a_bounce_of_yesterdays_mail_takes_nothing_away_from_what_was_sent(world: World) -> None:
    row = world.deliver(world.run(world.activity("spring")), DeliveryState.ACCEPTED, day=NOW - DAY)
    world.move(row, DeliveryState.BOUNCED, day=NOW)

    days = bounces.report(world.connection, by=By.DAY)
    today = domains.report(world.connection, sent.midnight(NOW))

    assert {group.key: group.sent for group in days.groups} == {"2026-11-23": 1}
    assert (today.total.sent, today.total.accepted, today.total.bounced) == (0, 0, 1)


def test_one_activity_is_told_apart(world: World) -> None:
    spring, autumn = world.activity("spring"), world.activity("autumn")
    for number, name in enumerate((spring, spring, autumn)):
        world.say(world.deliver(world.run(name, NOW + number * DAY), DeliveryState.BOUNCED))

    total = bounces.report(world.connection, sent.Scope(activity_id=spring)).total

    assert (total.bounces, total.sent) == (2, 2)


def test_runs_that_were_over_long_before_are_not_even_looked_at(world: World) -> None:
    old = world.run(world.activity("old"), NOW - 90 * DAY)
    world.deliver(old, DeliveryState.ACCEPTED, day=NOW)  # cannot be: it shows that the run was passed over
    assert bounces.report(world.connection, sent.Scope(sent.midnight(NOW - 7 * DAY))).total.sent == 0


# --- activity ---------------------------------------------------------------------------------------------


def test_the_audience_of_a_run_is_the_sum_of_its_states(world: World) -> None:
    run_id = world.run(world.activity("spring"), seconds=None)
    for state in DeliveryState:
        world.deliver(run_id, state, reason="not-opted-in" if state is DeliveryState.SKIPPED else None)

    (one,) = activities.report(world.connection, "spring").runs

    assert one.audience == len(DeliveryState)
    assert one.outcomes == dict.fromkeys(activities.OUTCOMES, 1) | {"open": 3}
    assert one.sent == 5
    assert one.skipped == {"not-opted-in": 1}
    assert one.proven


def test_skipped_recipients_are_counted_by_reason(world: World) -> None:
    run_id = world.run(world.activity("spring"))
    for reason in ("suppressed", "not-opted-in", "not-opted-in"):
        row = world.deliver(run_id, DeliveryState.SKIPPED, reason=reason)

    (one,) = activities.report(world.connection, "spring").runs
    assert list(one.skipped.items()) == [("not-opted-in", 2), ("suppressed", 1)]
    assert one.proven

    world.connection.execute(delivery.delete().where(delivery.c.id == row.id))
    (one,) = activities.report(world.connection, "spring").runs
    assert not one.proven


def test_a_run_has_a_duration_and_a_rate_once_it_began(world: World) -> None:
    activity_id = world.activity("spring")
    run_id = world.run(activity_id, NOW - DAY, seconds=4)
    for _ in range(8):
        world.deliver(run_id, DeliveryState.ACCEPTED)
    world.insert(run, activity_id=activity_id, occurrence_at=NOW + DAY, state=RunState.SCHEDULED)
    on = world.run(activity_id, NOW, seconds=None)
    world.deliver(on, DeliveryState.ACCEPTED)

    later, under_way, over = activities.report(world.connection, activity_id).runs

    assert (later.duration(NOW), later.rate(NOW), later.audience) == (None, None, 0)
    assert (under_way.duration(NOW + 5 * MINUTE), under_way.rate(NOW + 5 * MINUTE)) == (5 * MINUTE, 1 / 300)
    assert (over.duration(NOW), over.rate(NOW)) == (timedelta(seconds=4), 2.0)


def test_a_run_tells_what_came_back_and_why(world: World) -> None:
    run_id = world.run(world.activity("spring"))
    row = world.deliver(run_id, DeliveryState.BOUNCED)
    world.say(row)
    world.say(row, category="mailbox-full", permanent=False)
    world.say(row, category="mailbox-full", permanent=False)
    world.say(row, "complaint")
    world.say(row, disposition="quarantined")
    world.say(world.deliver(world.run(world.activity("autumn")), DeliveryState.BOUNCED))

    (one,) = activities.report(world.connection, "spring").runs

    assert of(one.reasons) == {"mailbox-full": 2, "no-such-user": 1}
    assert (one.returned.bounces, one.returned.complaints) == (3, 1)


def test_an_unsubscribe_counts_for_the_last_run_that_the_person_got(world: World) -> None:
    activity_id = world.activity("spring")
    first, second = world.run(activity_id, NOW), world.run(activity_id, NOW + DAY)
    for_outlet = world.run(world.activity("outlet", "outlet"), NOW + MINUTE)
    got_both = world.person()
    for run_id in (first, second, for_outlet):
        world.deliver(run_id, DeliveryState.ACCEPTED, person=got_both)
    got_none = world.person()
    world.deliver(second, DeliveryState.SKIPPED, person=got_none, reason="suspended")
    for person, at in ((got_both, NOW + 2 * DAY), (got_none, NOW + 2 * DAY)):
        world.say(None, "unsubscribe", recipient_id=person.id, at=at, action="unsubscribed")

    latest, earlier = activities.report(world.connection, "spring").runs
    (other_store,) = activities.report(world.connection, "outlet").runs

    assert (latest.unsubscribed, earlier.unsubscribed, other_store.unsubscribed) == (1, 0, 0)


def test_the_latest_runs_come_first_and_the_others_are_counted(world: World) -> None:
    activity_id = world.activity("daily")
    ids = [world.run(activity_id, NOW + days * DAY) for days in range(4)]

    report = activities.report(world.connection, "daily", limit=2)

    assert ([one.run.id for one in report.runs], report.earlier) == ([ids[3], ids[2]], 2)


def test_an_unknown_activity_is_a_fault_of_the_input(world: World) -> None:
    with pytest.raises(InputError, match="no activity 'sprnig'"):
        activities.report(world.connection, "sprnig")


# --- domains ----------------------------------------------------------------------------------------------


def test_domains_tell_what_became_of_their_mail(world: World) -> None:
    run_id = world.run(world.activity("spring"))
    states = ("accepted", "delivered", "bounced", "refused", "unknown", "skipped", "queued")
    for state in states:
        world.deliver(run_id, DeliveryState(state), at="busy.test")
    world.deliver(run_id, DeliveryState.ACCEPTED, at="quiet.test")
    world.deliver(run_id, DeliveryState.SKIPPED, at="nothing.test")

    report = domains.report(world.connection)

    assert report.domains == [
        domains.Domain("busy.test", sent=5, accepted=3, refused=1, bounced=1, unknown=1),
        domains.Domain("quiet.test", sent=1, accepted=1, refused=0, bounced=0, unknown=0),
    ]
    assert (report.domains[0].share, report.total.sent, report.count) == (0.4, 6, 2)
    assert [one.name for one in domains.report(world.connection, limit=1).domains] == ["busy.test"]


def test_domains_without_anything_sent_are_an_empty_report(world: World) -> None:
    report = domains.report(world.connection, NOW)
    assert (report.domains, report.total.sent, report.total.share, report.count) == ([], 0, None, 0)


# --- recipient --------------------------------------------------------------------------------------------


def test_a_timeline_tells_a_life_in_its_order(world: World) -> None:
    person = world.person(created_at=NOW - 3 * DAY)
    ledger = {"recipient_id": person.id, "cause": "import", "store_id": 1}
    world.insert(change, at=NOW - 3 * DAY, kind="opt_in", before="", after="in (import)", **ledger)
    row = world.deliver(
        world.run(world.activity("spring")),
        DeliveryState.BOUNCED,
        person=person,
        attempt=1,
        marked_at=NOW,
        settled_at=NOW + MINUTE,
        reply="250 2.0.0 Ok",
        reason="no-such-user",
    )
    bounce_id = world.say(
        row, at=NOW + 2 * MINUTE, rule="no-such-user", diagnostic="550 5.1.1 nobody", why="it is dead"
    )
    world.insert(
        change,
        at=NOW + 2 * MINUTE,
        kind="status",
        before="deliverable",
        after="undeliverable (no-such-user)",
        address_id=person.address_id,
        cause="bounce",
        bounce_id=bounce_id,
    )
    status = {"status": "undeliverable", "category": "no-such-user", "since": NOW}
    world.connection.execute(recipient_status.insert().values(address_id=person.address_id, **status))
    wish = {
        "recipient_id": person.id,
        "store_id": 1,
        "receive": False,
        "source": "hard_bounce",
        "changed_at": NOW,
    }
    world.connection.execute(opt_in.insert().values(wish))

    (found,) = timeline.report(world.connection, person.external_id)

    assert [(entry.at, entry.kind, entry.what) for entry in found.entries] == [
        (NOW - 3 * DAY, "recipient", "imported"),
        (NOW - 3 * DAY, "opt_in", "changed"),
        (NOW, "delivery", "marked"),
        (NOW + MINUTE, "delivery", "accepted"),
        (NOW + 2 * MINUTE, "bounce", "bounce"),
        (NOW + 2 * MINUTE, "status", "changed"),
    ]
    assert found.status == "undeliverable"
    assert found.opt_ins == {"main": False}
    accepted, bounced, changed = (entry.fields for entry in found.entries[3:])
    assert (accepted["activity"], accepted["reply"]) == ("spring", "250 2.0.0 Ok")
    assert "reason" not in accepted
    assert (bounced["rule"], bounced["evidence"], bounced["disposition"]) == (
        "no-such-user",
        "signed",
        "applied",
    )
    assert (changed["after"], changed["bounce_id"]) == ("undeliverable (no-such-user)", bounce_id)


@pytest.mark.parametrize(
    ("state", "values", "expected"),
    [
        pytest.param("queued", {}, ["queued"], id="not tried yet"),
        pytest.param("queued", {"attempt": 1, "marked_at": NOW}, ["marked", "queued"], id="deferred"),
        pytest.param("sending", {"attempt": 1, "marked_at": NOW}, ["marked"], id="under way"),
        pytest.param("skipped", {"reason": "suspended"}, ["skipped"], id="skipped"),
        pytest.param("unknown", {"marked_at": NOW, "settled_at": NOW}, ["marked", "unknown"], id="in doubt"),
        pytest.param(
            "delivered", {"marked_at": NOW, "settled_at": NOW}, ["marked", "accepted"], id="delivered"
        ),
        pytest.param("bounced", {"marked_at": NOW}, ["marked"], id="bounced before its outcome was known"),
    ],
)
def test_a_delivery_tells_where_it_stands(
    world: World, state: str, values: dict[str, Any], expected: list[str]
) -> None:
    person = world.person()
    world.deliver(world.run(world.activity("spring")), DeliveryState(state), person=person, **values)
    (found,) = timeline.report(world.connection, person.address)
    assert [entry.what for entry in found.entries if entry.kind == "delivery"] == expected


def test_who_shares_an_address_is_found_by_it_and_alone_by_external_id(world: World) -> None:
    one, other = world.person(local="both"), world.person(local="both")
    world.person()
    assert [found.external_id for found in timeline.report(world.connection, "Both@Example.com")] == [
        "c1",
        "c2",
    ]
    assert [found.recipient_id for found in timeline.report(world.connection, other.external_id)] == [
        other.id
    ]
    assert one.id != other.id


def test_nobody_of_that_name_is_a_fault_of_the_input(world: World) -> None:
    with pytest.raises(InputError, match="no recipient"):
        timeline.report(world.connection, "nobody@example.com")


def test_the_timeline_keeps_the_status_of_an_address_that_mail_went_to_before(world: World) -> None:
    person, other = world.person(local="new"), world.person(local="old")
    world.deliver(world.run(world.activity("spring")), DeliveryState.ACCEPTED, person=other)
    world.connection.execute(delivery.update().values(recipient_id=person.id))
    ledger = {"kind": "status", "before": "deliverable", "after": "suspended", "cause": "bounce"}
    world.insert(change, at=NOW, address_id=other.address_id, **ledger)

    (found,) = timeline.report(world.connection, person.external_id)

    assert [entry.fields["address"] for entry in found.entries if entry.kind == "status"] == [
        "old@example.com"
    ]


# --- speed ------------------------------------------------------------------------------------------------


@contextmanager
def statements(connection: sa.Connection) -> Iterator[list[tuple[str, Any]]]:
    """Give the statements that are executed, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    yield seen
    sa.event.remove(connection, "before_cursor_execute", note)


def plan(connection: sa.Connection, statement: str, parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(lambda c: bounces.report(c, sent.Scope(NOW - DAY), By.DOMAIN), id="bounces since"),
        pytest.param(lambda c: bounces.report(c, sent.Scope(activity_id=1)), id="bounces of an activity"),
        pytest.param(lambda c: activities.report(c, "spring"), id="activity"),
        pytest.param(lambda c: domains.report(c, NOW - DAY), id="domains"),
        pytest.param(lambda c: timeline.report(c, "c1"), id="recipient"),
    ],
)
def test_no_report_reads_all_deliveries_or_all_bounces(world: World, report: Any) -> None:
    run_id = world.run(world.activity("spring"))
    row = world.deliver(run_id, DeliveryState.SKIPPED, reason="suspended")
    world.say(row)
    if world.connection.dialect.name == "postgresql":  # it would rather scan a table as small as this
        world.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")

    with statements(world.connection) as seen:
        report(world.connection)
    plans = {statement: plan(world.connection, statement, parameters) for statement, parameters in seen}

    assert plans
    for statement, lines in plans.items():
        for table in ("delivery", "bounce", "tally"):
            for scan in (f"SCAN {table}", f"Seq Scan on {table}"):
                assert scan not in lines, f"{statement}\n{lines}"


def test_the_reasons_of_skipped_deliveries_are_found_by_their_own_index(world: World) -> None:
    world.deliver(world.run(world.activity("spring")), DeliveryState.SKIPPED, reason="suspended")
    if world.connection.dialect.name == "postgresql":
        world.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    with statements(world.connection) as seen:
        activities.report(world.connection, "spring")
    plans = [
        plan(world.connection, *one) for one in seen if "FROM delivery" in one[0] and "EXISTS" not in one[0]
    ]
    assert len(plans) == 1
    assert "ix_delivery_exceptional" in plans[0]


def test_the_day_of_a_scope_is_the_day_of_the_tally() -> None:
    assert tokens.day_number(sent.midnight(NOW)) == tokens.day_number(NOW)
    assert sent.Scope(sent.midnight(NOW)).of_whole_days
    assert not sent.Scope(NOW).of_whole_days

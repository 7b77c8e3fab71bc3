"""Outcomes and what they mean, the group commit, and a courier between a relay in trouble and the database."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

import scripted_relay
from mailbound import classify, pacing, relay, status
from mailbound.config import Policy as Limits
from mailbound.database import deliveries, remaining, runs, schema, tables, tally
from mailbound.database.claims import Claimed
from mailbound.database.deliveries import Settlement
from mailbound.database.engine import Database
from mailbound.database.outcomes import Ended
from mailbound.lifecycle import DeliveryEvent, RunEvent
from mailbound.model import Action, Category, Evidence, Letter, Outcome, Phase, Reply, Result, Verdict
from mailbound.outbound import courier, loop, settling
from mailbound.outbound.courier import Courier, Item
from mailbound.outbound.settling import Attempt
from mailbound.outbound.telling import Teller
from mailbound.outbound.writer import Writer
from mailbound.pacing import Backoff
from world import NODE, NOW, World

_MINUTE = timedelta(minutes=1)
_RETRY = Backoff(first=60.0, cap=3600.0)

_E = DeliveryEvent


# --- what an outcome means --------------------------------------------------------------------------------


def _verdict(category: Category, *, permanent: bool) -> Verdict:
    return Verdict(category, permanent=permanent, status=status.StatusCode(5, 7, 1), rule="test")


_NO_SUCH_USER = _verdict(Category.NO_SUCH_USER, permanent=True)
_GREYLISTED = _verdict(Category.GREYLISTED, permanent=False)
_BLOCKED = _verdict(Category.BLOCKED, permanent=True)
_CONTENT = _verdict(Category.CONTENT, permanent=True)
_YES = Reply(250, "2.0.0 Ok")
_NO = Reply(550, "5.7.1 No")
_LATER = Reply(450, "4.7.1 Later")


def _settle(
    result: Result,
    *,
    reply: Reply | None = None,
    verdict: Verdict | None = None,
    number: int = 1,
    resend: bool = True,
    marked: bool = True,
    why: str = "",
) -> Ended:
    return settling.settle(
        Attempt(7, number, marked=marked, resend=resend),
        Outcome(result, Phase.FINAL_DOT, reply, why),
        verdict,
        retry=_RETRY,
        jitter=0.0,
        rule_version="v1",
        relay="relay.test",
        now=NOW,
    )


@pytest.mark.parametrize(
    ("given", "event", "attempt", "waits", "found"),
    [
        pytest.param({"result": Result.ACCEPTED, "reply": _YES}, _E.ACCEPT, 1, None, False, id="accepted"),
        pytest.param(
            {"result": Result.DEFERRED, "reply": _LATER, "verdict": _GREYLISTED},
            _E.DEFER,
            1,
            _MINUTE,
            False,
            id="deferred",
        ),
        pytest.param(
            {"result": Result.DEFERRED, "reply": _LATER, "verdict": _GREYLISTED, "number": 4},
            _E.DEFER,
            4,
            8 * _MINUTE,
            False,
            id="deferred for the fourth time",
        ),
        pytest.param(
            {"result": Result.REFUSED, "reply": _NO, "verdict": _NO_SUCH_USER},
            _E.REFUSE,
            1,
            None,
            True,
            id="refused, the address is to blame",
        ),
        pytest.param(
            {"result": Result.REFUSED, "reply": _NO, "verdict": _CONTENT},
            _E.REFUSE,
            1,
            None,
            True,
            id="refused, the message is to blame",
        ),
        pytest.param(
            {"result": Result.REFUSED, "reply": _NO, "verdict": _BLOCKED},
            _E.DEFER,
            1,
            _MINUTE,
            True,
            id="refused, we are to blame: a second chance",
        ),
        pytest.param(
            {"result": Result.REFUSED, "reply": _NO, "verdict": _BLOCKED, "number": 2},
            _E.REFUSE,
            2,
            None,
            True,
            id="refused again, we are to blame",
        ),
        pytest.param(
            {"result": Result.REFUSED, "why": "the address is not ASCII"},
            _E.REFUSE,
            1,
            None,
            False,
            id="refused by ourselves: there is no reply to learn from",
        ),
        pytest.param({"result": Result.UNKNOWN, "why": "lost"}, _E.LOSE, 1, None, False, id="in doubt"),
        pytest.param(
            {"result": Result.UNTRIED, "why": "relay down", "number": 3},
            _E.RELEASE,
            2,
            None,
            False,
            id="untried: no attempt counts",
        ),
        pytest.param(
            {"result": Result.UNTRIED, "reply": Reply(421, "4.3.2 Bye")},
            _E.RELEASE,
            0,
            None,
            False,
            id="untried, the relay closes",
        ),
    ],
)
def test_what_an_outcome_means_for_its_delivery(
    given: dict[str, Any], event: DeliveryEvent, attempt: int, waits: timedelta | None, found: bool
) -> None:
    ended = _settle(**given)
    assert ended.settlement is not None
    assert (ended.settlement.event, ended.settlement.attempt) == (event, attempt)
    assert ended.settlement.next_attempt_at == (NOW + waits if waits else None)
    assert (ended.finding is not None) == found


def test_a_refusal_is_evidence_of_its_own_attempt() -> None:
    finding = _settle(Result.REFUSED, reply=_NO, verdict=_NO_SUCH_USER, number=3).finding
    assert finding is not None
    assert (finding.action, finding.evidence) == (Action.FAILED, Evidence.DIRECT)
    assert (finding.delivery_id, finding.attempt, finding.at) == (7, 3, NOW)
    assert (finding.diagnostic, finding.reporting_mta) == ("550 5.7.1 No", "relay.test")
    assert (finding.verdict, finding.rule_version) == (_NO_SUCH_USER, "v1")


@pytest.mark.parametrize(
    ("resend", "at"), [pytest.param(True, NOW + _MINUTE, id="resend"), pytest.param(False, None, id="hold")]
)
def test_what_is_in_doubt_is_sent_again_only_where_that_is_wanted(resend: bool, at: object) -> None:
    assert _settle(Result.UNKNOWN, resend=resend).resend_at == at
    assert _settle(Result.ACCEPTED, reply=_YES, resend=resend).resend_at is None


def test_about_what_was_withdrawn_the_database_knows_best() -> None:
    assert _settle(Result.WITHDRAWN, marked=False) == Ended(7, None)


def test_what_was_marked_and_yet_withdrawn_is_given_back_with_its_attempt() -> None:
    settlement = _settle(Result.WITHDRAWN, number=3).settlement
    assert settlement is not None
    assert (settlement.event, settlement.attempt) == (_E.RELEASE, 2)


# --- the writer -------------------------------------------------------------------------------------------


@contextmanager
def _database(url: str, *people: str) -> Iterator[tuple[Database, list[Claimed]]]:
    """Give a database in which `people` are claimed by us, in this order."""
    database = Database(url, checkpoints=True)
    try:
        schema.upgrade(database)
        with database.begin() as connection:
            here = World(connection)
            for name in people:
                here.person(name)
            claimed = here.claim(here.sending())
        yield database, claimed
    finally:
        database.close()


def _states(database: Database) -> list[str]:
    with database.look() as connection:
        return list(
            connection.execute(sa.select(tables.delivery.c.state).order_by(tables.delivery.c.id)).scalars()
        )


@asynccontextmanager
async def _writing(database: Database) -> AsyncIterator[Writer]:
    with database.look() as connection:
        store_id = connection.execute(sa.select(tables.activity.c.store_id)).scalar_one()
    writer = Writer(
        database,
        node_id=NODE,
        store_id=store_id,
        limits=Limits(),
        clock=lambda: NOW,
        recorded=lambda *_: None,
        company=2,
    )
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _mark(writer: Writer, delivery_id: int) -> bool:
    granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    writer.mark(delivery_id, granted.set_result)
    return await granted


def _accepted(claimed: Claimed) -> Ended:
    return Ended(claimed.id, Settlement(claimed.id, _E.ACCEPT, attempt=claimed.attempt, reply="250 Ok"))


@pytest.mark.parametrize(
    ("seconds", "letters", "together"),
    [
        pytest.param(0.00002, 1, 64, id="quick ones"),
        pytest.param(0.032, 64, 4, id="half a millisecond each"),
        pytest.param(0.5, 1, 1, id="never fewer than one"),
        pytest.param(0.0, 64, 64, id="too quick for the clock"),
    ],
)
def test_slow_letters_are_composed_together_in_smaller_number(
    seconds: float, letters: int, together: int
) -> None:
    assert loop.letters_together(seconds, letters) == together


@pytest.mark.parametrize(
    ("connections", "letter_octets", "ahead"),
    [
        pytest.param(10, 0, 200, id="none was composed yet"),
        pytest.param(10, 10_000, 200, id="ordinary letters"),
        pytest.param(10, 2**20, 64, id="letters with a large attachment"),
        pytest.param(10, 25 * 2**20, 10, id="never fewer than one for each connection"),
    ],
)
def test_large_letters_are_composed_ahead_in_smaller_number(
    connections: int, letter_octets: int, ahead: int
) -> None:
    assert loop.letters_ahead(connections, letter_octets) == ahead


def test_a_mark_is_granted_once_it_is_durable(database_url: str) -> None:
    async def main() -> None:
        with _database(database_url, "anna") as (database, (anna,)):
            async with _writing(database) as writer:
                assert await _mark(writer, anna.id)
                assert _states(database) == ["sending"], "another connection sees it"

    asyncio.run(main())


def test_a_mark_is_refused_to_a_run_that_no_longer_sends(database_url: str) -> None:
    async def main() -> None:
        with _database(database_url, "anna") as (database, (anna,)):
            with database.begin() as connection:
                runs.move(connection, anna.run_id, RunEvent.PAUSE, now=NOW)
            async with _writing(database) as writer:
                assert not await _mark(writer, anna.id)
            assert _states(database) == ["claimed"]

    asyncio.run(main())


def test_an_outcome_is_durable_with_a_mark_that_was_asked_for_later(database_url: str) -> None:
    async def main() -> None:
        with _database(database_url, "anna", "bert") as (database, (anna, bert)):
            async with _writing(database) as writer:
                assert await _mark(writer, anna.id)
                writer.settle(_accepted(anna))
                assert await _mark(writer, bert.id)
                assert _states(database) == ["accepted", "sending"]

    asyncio.run(main())


def test_no_mark_overtakes_an_outcome_however_many_there_are(sqlite_url: str) -> None:
    people = [f"person-{number}" for number in range(702)]

    async def main() -> None:
        with _database(sqlite_url, *people) as (database, claimed):
            *early, last = claimed
            async with _writing(database) as writer:
                assert all(await asyncio.gather(*(_mark(writer, each.id) for each in early)))
                for each in early:
                    writer.settle(_accepted(each))
                assert await _mark(writer, last.id)
                assert _states(database) == ["accepted"] * len(early) + ["sending"]

    asyncio.run(main())


def test_while_the_database_is_locked_no_mark_is_granted_and_no_outcome_lost(sqlite_url: str) -> None:
    async def main() -> None:
        with _database(sqlite_url, "anna", "bert") as (database, (anna, bert)):
            async with _writing(database) as writer:
                assert await _mark(writer, anna.id)
                with contextlib.closing(sqlite3.connect(str(database.path), isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    writer.settle(_accepted(anna))
                    wanted = asyncio.create_task(_mark(writer, bert.id))
                    for _ in range(100):  # reading goes on meanwhile
                        await database.read(remaining.any_open, anna.run_id)
                        assert not wanted.done()
                    assert _states(database) == ["sending", "claimed"]
                    other.execute("ROLLBACK")
                assert await wanted
                assert _states(database) == ["accepted", "sending"]

    asyncio.run(main())


def test_flush_waits_for_all_that_was_handed_over(database_url: str) -> None:
    async def main() -> None:
        with _database(database_url, "anna", "bert") as (database, claimed):
            async with _writing(database) as writer:
                await writer.flush()
                for each in claimed:
                    writer.settle(Ended(each.id, Settlement(each.id, _E.RELEASE)))
                await writer.flush()
                assert _states(database) == ["queued", "queued"]

    asyncio.run(main())


@pytest.mark.parametrize("report", [_E.REPORT_FAILED, _E.REPORT_DELIVERED])
@pytest.mark.parametrize(
    "event", [_E.ACCEPT, _E.DEFER, _E.REFUSE, _E.LOSE, _E.RELEASE, _E.SKIP, _E.FAIL, _E.EXPIRE, None]
)
@pytest.mark.parametrize("marked", [True, False], ids=["marked", "claimed"])
def test_a_report_that_overtakes_the_outcome_has_the_last_word(
    sqlite_url: str, report: DeliveryEvent, event: DeliveryEvent | None, marked: bool
) -> None:
    async def main() -> None:
        with _database(sqlite_url, "anna") as (database, (anna,)):
            async with _writing(database) as writer:
                if marked:
                    assert await _mark(writer, anna.id)
                with database.begin() as connection:
                    told = deliveries.Told(anna.id, report, reason="", status="")
                    said = deliveries.report(connection, [told], now=NOW)[anna.id]
                settlement = Settlement(anna.id, event) if event else None
                writer.settle(Ended(anna.id, settlement, resend_at=NOW if event is _E.LOSE else None))
                await asyncio.wait_for(writer.flush(), 5)
                assert _states(database) == [said]
            with database.look() as connection:
                assert tally.differences(connection) == []

    asyncio.run(main())


# --- a courier --------------------------------------------------------------------------------------------


def _item(claimed: Claimed, **more: Any) -> Item:
    letter = Letter(
        delivery_id=claimed.id,
        attempt=claimed.attempt,
        return_path="bounces+abc@sender.test",
        recipient=claimed.address,
        envid="abc",
        content=b"Subject: spring\r\n\r\nHello\r\n",
    )
    return Item(claimed, letter, "spring", **{"resend": False, "expires_at": None, **more})


def _deliver(
    url: str, *scripts: str, people: tuple[str, ...] = ("anna",), password: str = "", **item: Any
) -> tuple[list[Any], scripted_relay.ScriptedRelay]:
    """Let one courier take a delivery for each of `people`; return their rows and what the relay saw."""

    async def main() -> tuple[list[Any], scripted_relay.ScriptedRelay]:
        with _database(url, *people) as (database, claimed):
            async with _writing(database) as writer, scripted_relay.serve(*scripts) as server:
                account = relay.Account(
                    host="127.0.0.1",
                    port=server.port,
                    tls="insecure",
                    ehlo_name="me.test",
                    username="shop" if password else "",
                    password=password,
                    deadlines=relay.Deadlines(quit=0.05, rset=0.05),  # the scripts end before them
                )
                queue: asyncio.Queue[Item] = asyncio.Queue()
                one = Courier(
                    0,
                    queue,
                    relay=relay.Relay(account, connections=1, reconnect=pacing.Backoff(0.0, 0.0)),
                    writer=writer,
                    teller=Teller(),
                    rules=classify.Rules.load(),
                    retry=_RETRY,
                    clock=lambda: NOW,
                    sends=lambda _: True,
                )
                task = asyncio.create_task(one.run())
                for each in claimed:
                    queue.put_nowait(_item(each, **item))
                await _settled(database, len(claimed))
                one.stop()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await one.quit()
            with database.look() as connection:
                assert tally.differences(connection) == []
                return list(connection.execute(sa.select(tables.delivery).order_by("id"))), server

    return asyncio.run(main())


async def _settled(database: Database, count: int) -> None:
    free = sa.select(sa.func.count()).where(tables.delivery.c.node_id.is_(None))
    while await database.read(lambda connection: connection.execute(free).scalar_one()) < count:
        pass  # reading lets the others run


_HELLO = scripted_relay.hello("ENHANCEDSTATUSCODES")
_MAIL = "C: MAIL\nS: 250 ok\n"
_RCPT = "C: RCPT\nS: 250 ok\n"
_DATA = "C: DATA\nS: 354 go\n"
_SENT = _MAIL + _RCPT + _DATA + "BODY\nS: 250 2.0.0 taken\n"


@pytest.mark.parametrize(
    ("script", "state", "attempt", "category"),
    [
        pytest.param(_SENT, "accepted", 1, None, id="accepted"),
        pytest.param(
            _MAIL + "C: RCPT\nS: 550 5.1.1 User unknown\nC: RSET\nS: 250 ok\n",
            "refused",
            1,
            "no-such-user",
            id="refused at RCPT",
        ),
        pytest.param(
            _MAIL + "C: RCPT\nS: 452 4.2.2 Mailbox full\nC: RSET\nS: 250 ok\n",
            "queued",
            1,
            "mailbox-full",
            id="deferred at RCPT",
        ),
        pytest.param(
            _MAIL + _RCPT + _DATA + "BODY\nS: 552 5.2.2 Mailbox full\n",
            "refused",
            1,
            "mailbox-full",
            id="refused at the final dot",
        ),
        pytest.param(_MAIL + _RCPT + _DATA + "BODY\nDROP\n", "unknown", 1, None, id="silent after the dot"),
    ],
)
def test_what_a_relay_says_is_what_the_database_gets(
    sqlite_url: str, script: str, state: str, attempt: int, category: str | None
) -> None:
    (row,), _ = _deliver(sqlite_url, _HELLO + script)
    assert (row.state, row.attempt, row.reason) == (state, attempt, category)


def test_what_is_in_doubt_waits_its_turn_and_is_sent_again(sqlite_url: str) -> None:
    (row,), _ = _deliver(sqlite_url, _HELLO + _MAIL + _RCPT + _DATA + "BODY\nDROP\n", resend=True)
    assert (row.state, row.attempt) == ("queued", 1)
    assert row.next_attempt_at > NOW


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("S: 421 4.3.2 closing\n", id="421 as a greeting"),
        pytest.param("DROP\n", id="no greeting"),
        pytest.param(_HELLO + "C: MAIL\nS: 421 4.3.2 closing\n", id="421 at MAIL"),
        pytest.param(_HELLO + "C: MAIL\nS: 550 5.7.1 not you\n", id="550 at MAIL"),
        pytest.param(_HELLO + _MAIL + "C: RCPT\nDROP\n", id="silence at RCPT"),
        pytest.param(_HELLO + _MAIL + _RCPT + "C: DATA\nDROP\n", id="silence at DATA"),
    ],
)
def test_a_fault_of_the_relay_costs_no_recipient_an_attempt(sqlite_url: str, trouble: str) -> None:
    (row,), _ = _deliver(sqlite_url, trouble, _HELLO)
    assert (row.state, row.attempt, row.reason) == ("queued", 0, None)


def test_a_reset_that_hangs_is_not_the_next_recipients(sqlite_url: str) -> None:
    put_off = _MAIL + "C: RCPT\nS: 450 4.2.0 Greylisted\nC: RSET\nHANG\n"
    (anna, bert), _ = _deliver(sqlite_url, _HELLO + put_off, _HELLO, people=("anna", "bert"))
    assert (anna.state, anna.attempt, anna.reason) == ("queued", 1, "greylisted")
    assert (bert.state, bert.attempt, bert.reason) == ("queued", 0, None)


def test_a_password_that_has_expired_is_nobodys_fault_and_is_not_tried_again_at_once(sqlite_url: str) -> None:
    refused = scripted_relay.hello("AUTH PLAIN") + "C: AUTH PLAIN\nS: 535 5.7.8 it has expired\nHANG\n"
    (row,), server = _deliver(sqlite_url, refused, password="secret")
    assert (row.state, row.attempt, row.reason) == ("queued", 0, None)
    assert server.connections == 1


def test_one_session_takes_one_delivery_after_another(sqlite_url: str) -> None:
    rows, server = _deliver(sqlite_url, _HELLO + _SENT * 3, people=("anna", "bert", "cleo"))
    assert [row.state for row in rows] == ["accepted"] * 3
    assert server.connections == 1


def test_a_session_that_broke_is_replaced(sqlite_url: str) -> None:
    rows, server = _deliver(sqlite_url, _HELLO + _SENT + "DROP\n", people=("anna", "bert", "cleo"))
    assert {row.state for row in rows} <= {"accepted", "queued"}
    assert rows[0].state == "accepted"
    assert server.connections >= 2


def test_what_expired_while_it_waited_is_not_sent(sqlite_url: str) -> None:
    (row,), server = _deliver(sqlite_url, _HELLO, expires_at=NOW)
    assert (row.state, row.attempt) == ("expired", 0)
    assert server.bodies == []


def test_a_mark_that_comes_too_late_sends_no_final_dot(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "_FRESH_SECONDS", 0.0)  # as if we had been suspended since we asked for it
    (row,), server = _deliver(sqlite_url, _HELLO + _MAIL + _RCPT + _DATA + "HANG\n")
    assert (row.state, row.attempt) == ("queued", 0)
    assert server.rest.endswith(b"Hello\r\n"), "without its final dot"

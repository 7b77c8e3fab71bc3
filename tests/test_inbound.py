"""Fetching and recording: nothing leaves the mailbox before it is kept, and no mail keeps another from being read."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

import inbox
from mailbound import mailbox, packing
from mailbound.bounds import Unreadable
from mailbound.database import inbound_mail, leases, nodes, tables
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival
from mailbound.errors import DatabaseError, MailboxError
from mailbound.inbound import Fetcher, Reader, recorder
from mailbound.inbound.findings import Arrived, Said
from mailbound.mailbox import SessionError, Trouble, pop3
from mailbound.model import Kind
from mailbound.simulator import Simulator
from scripted_pop3 import HANG_UP, ScriptedPop3
from world import NOW

STRANGE = b"From: <>\r\nSubject: Undelivered Mail Returned to Sender\r\nReturn-Path: <>\r\n\r\nSorry.\r\n"
FORGED = (Path(__file__).parent / "mails" / "forged.eml").read_bytes().replace(b"\n", b"\r\n")


async def _open(port: int, **more: Any) -> mailbox.Mailbox:
    return await pop3.open(
        host="127.0.0.1", port=port, tls="insecure", username="bounces", password="secret", **more
    )


def _fetcher(database: Database, port: int, **more: Any) -> Fetcher:
    opened = functools.partial(_open, port)
    return inbox.fetcher_of(database, opened, **{"poll": timedelta(seconds=1), **more})


@asynccontextmanager
async def _mailbox(count: int) -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        for number in range(count):
            simulator.maildrop.put(inbox.MAIL % number)
        yield simulator


# --- fetching ---------------------------------------------------------------------------------------------


def test_a_mail_is_kept_as_it_was_and_then_deleted(database_url: str) -> None:
    async def main() -> None:
        arrivals = []
        with inbox.database_at(database_url) as database:
            async with _mailbox(3) as simulator:
                more = await _fetcher(
                    database, simulator.pop3_port, arrived=lambda: arrivals.append(1)
                ).fetch()
                assert (more, len(simulator.maildrop), arrivals) == (False, 0, [1])
            assert inbox.kept(database) == [inbox.MAIL % number for number in range(3)]
            assert {(mail.state, mail.attempts) for mail in inbox.mails(database)} == {("new", 0)}

    asyncio.run(main())


def test_a_full_mailbox_is_emptied_in_one_session_batch_by_batch(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with _mailbox(450) as simulator:
                arrivals: list[int] = []
                fetch = _fetcher(database, simulator.pop3_port, arrived=lambda: arrivals.append(1)).fetch
                assert (await fetch(), len(arrivals), len(simulator.maildrop)) == (False, 3, 0)
            assert inbox.kept(database) == [inbox.MAIL % number for number in range(450)]

    asyncio.run(main())


def test_a_session_ends_before_it_takes_too_long(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with _mailbox(450) as simulator:
                fetch = _fetcher(database, simulator.pop3_port).fetch
                monkeypatch.setattr("mailbound.inbound.fetcher._SESSION_MAILS", 210)
                assert (await fetch(), len(simulator.maildrop)) == (True, 240)
                monkeypatch.setattr("mailbound.inbound.fetcher._SESSION_SECONDS", 0.0)
                assert (await fetch(), len(simulator.maildrop)) == (True, 40)
                assert (await fetch(), len(simulator.maildrop)) == (False, 0)

    asyncio.run(main())


@pytest.mark.parametrize("delete", [True, False], ids=["delete", "keep"])
def test_however_many_mails_the_server_keeps_to_itself_the_rest_goes_on(
    sqlite_url: str, delete: bool
) -> None:
    refused, count = 230, 250
    listing = b"".join(b"%d 12\r\n" % number for number in range(1, count + 1))
    uids = b"".join(b"%d uid-%d\r\n" % (number, number) for number in range(1, count + 1))
    script = {"LIST": b"+OK\r\n" + listing + b".\r\n", "UIDL": b"+OK\r\n" + uids + b".\r\n"}
    for number in range(1, count + 1):
        mail = b"+OK\r\nA: %d\r\n\r\n.\r\n" % number
        script[f"RETR {number}"] = b"-ERR damaged\r\n" if number <= refused else mail

    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedPop3(script) as server:
                fetch = _fetcher(database, server.port, delete=delete).fetch
                assert not await fetch()
                assert len(inbox.kept(database)) == count - refused
                deleted = [command for command in server.heard if command.startswith("DELE")]
                assert deleted == [f"DELE {number}" for number in range(refused + 1, count + 1) if delete]
                server.heard.clear()
                await fetch()
                asked = [command for command in server.heard if command.startswith("RETR")]
                assert asked[-1] == f"RETR {refused}", "what it keeps to itself is asked for last"

    asyncio.run(main())


@pytest.mark.parametrize("offered", [True, False], ids=["with TOP", "without TOP"])
def test_without_uidl_what_stays_is_known_by_its_header(sqlite_url: str, offered: bool) -> None:
    script = {
        "UIDL": b"-ERR unknown\r\n",
        "TOP": b"-ERR unknown\r\n",
    }
    if offered:
        script |= {
            "TOP 1 0": b"+OK\r\nA: 1\r\n\r\n.\r\n",
            "TOP 2 0": b"+OK\r\nA: 2\r\n\r\n.\r\n",
        }

    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedPop3(script) as server:
                opened = functools.partial(_open, server.port, keeps=True)
                fetch = inbox.fetcher_of(database, opened, delete=False).fetch
                for _ in range(3):
                    await fetch()
                asked = [command for command in server.heard if command.startswith("RETR")]
                assert asked == ["RETR 1", "RETR 2"] * (1 if offered else 3)
                session = await opened()
                await session.list()
                assert bool(session.doubts) is not offered
                await session.close(commit=False)
            assert len(inbox.kept(database)) == 2

    asyncio.run(main())


def test_what_stays_in_the_mailbox_is_fetched_once(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with _mailbox(2) as simulator:
                fetch = _fetcher(database, simulator.pop3_port, delete=False).fetch
                await fetch()
                simulator.maildrop.put(inbox.MAIL % 2)
                await fetch()
                assert len(simulator.maildrop) == 3
            assert inbox.kept(database) == [inbox.MAIL % number for number in range(3)]

    asyncio.run(main())


def test_the_uid_of_a_mail_that_is_gone_may_be_given_to_another(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            for text in (b"one", b"two"):  # the same uids again
                mail = b"+OK\r\nA: 1\r\n\r\n%b\r\n.\r\n" % text
                script = {
                    "LIST": b"+OK\r\n1 12\r\n.\r\n",
                    "UIDL": b"+OK\r\n1 first\r\n.\r\n",
                    "RETR 1": mail,
                }
                async with ScriptedPop3(script) as server:
                    await _fetcher(database, server.port).fetch()
                    assert "DELE 1" in server.heard
            assert [content[-5:] for content in inbox.kept(database)] == [b"one\r\n", b"two\r\n"]

    asyncio.run(main())


@pytest.mark.parametrize("delete", [True, False], ids=["delete", "keep"])
def test_two_mails_that_share_a_uid_are_both_kept(sqlite_url: str, delete: bool) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedPop3({"UIDL": b"+OK\r\n1 same\r\n2 same\r\n.\r\n"}) as server:
                fetch = _fetcher(database, server.port, delete=delete).fetch
                await fetch()
                await fetch()  # again, since it is not known which of them is which
            assert [content[-5:] for content in inbox.kept(database)] == [b"one\r\n", b"two\r\n"]

    asyncio.run(main())


def test_what_the_server_will_not_hand_over_is_left_there(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedPop3({"RETR 1": b"-ERR broken\r\n"}) as server:
                assert not await _fetcher(database, server.port).fetch()
                assert [each for each in server.heard if each.startswith(("DELE", "QUIT"))] == [
                    "DELE 2",
                    "QUIT",
                ]
            assert len(inbox.kept(database)) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "script",
    [
        pytest.param({"RETR 2": HANG_UP}, id="silence in the middle"),
        pytest.param({"DELE 2": HANG_UP}, id="silence at DELE"),
        pytest.param({"LIST": b"-ERR [SYS/TEMP] busy\r\n"}, id="no list"),
    ],
)
def test_trouble_ends_without_a_quit(sqlite_url: str, script: dict[str, Any]) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedPop3(script) as server:
                with pytest.raises(MailboxError):
                    await _fetcher(database, server.port).fetch()
                assert "QUIT" not in server.heard
            async with ScriptedPop3() as server:
                await _fetcher(database, server.port).fetch()
            assert len(inbox.kept(database)) == 2

    asyncio.run(main())


@pytest.mark.parametrize("answer", [b"-ERR some were not removed\r\n", HANG_UP], ids=["refused", "lost"])
def test_a_quit_that_fails_is_no_trouble_and_the_mail_counts_once(sqlite_url: str, answer: Any) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedPop3({"QUIT": answer}) as server:
                fetch = _fetcher(database, server.port).fetch
                assert not await fetch()
                assert not await fetch()
                assert server.heard.count("QUIT") == 2
            assert len(inbox.kept(database)) == 2

    asyncio.run(main())


def test_nothing_is_deleted_that_could_not_be_committed(sqlite_url: str) -> None:
    """The disk is full: SQLite may not grow by one page more."""

    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            await database.run(
                lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1").close()
            )
            async with _mailbox(1) as simulator:
                simulator.maildrop.put(os.urandom(300_000).hex().encode() + b"\r\n")
                with pytest.raises(DatabaseError, match="full"):
                    await _fetcher(database, simulator.pop3_port).fetch()
                assert len(simulator.maildrop) == 2
            assert inbox.kept(database) == []

    asyncio.run(main())


def test_nothing_is_deleted_while_the_database_is_locked(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedPop3() as server:
                with contextlib.closing(sqlite3.connect(str(database.path), isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    fetching = asyncio.create_task(_fetcher(database, server.port).fetch())
                    await server.hears("RETR 2")
                    for _ in range(100):
                        await database.read(inbound_mail.held_octets)
                    assert not any(command.startswith(("DELE", "QUIT")) for command in server.heard)
                    other.execute("ROLLBACK")
                await fetching
                assert server.heard[-3:] == ["DELE 1", "DELE 2", "QUIT"]
            assert len(inbox.kept(database)) == 2

    asyncio.run(main())


def test_when_the_budget_is_used_up_nothing_is_fetched_or_deleted_until_there_is_room(
    sqlite_url: str,
) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database, capture_logs() as logged:
            async with _mailbox(2) as simulator:
                fetch = _fetcher(database, simulator.pop3_port, budget_octets=2 * len(inbox.MAIL % 0)).fetch
                await fetch()
                simulator.maildrop.put(inbox.MAIL % 2)
                for _ in range(2):
                    assert not await fetch()
                assert (len(simulator.maildrop), len(inbox.kept(database))) == (1, 2), "nothing goes unread"
                async with inbox.recording(database) as (one, _):
                    await inbox.record_all(one, database)
                assert not await fetch()
                assert len(simulator.maildrop) == 0
            assert [mail.state for mail in inbox.mails(database)] == ["read", "read", "new"]
        told = [each["event"] for each in logged if each["event"].startswith("mailbox") or "mails" in each]
        full = "mailbox.budget_exceeded"
        assert told == ["mail.fetched", full, "mail.displaced", "mailbox.recovered", "mail.fetched"]

    asyncio.run(main())


def test_the_oldest_understood_mail_makes_room_first(database_url: str) -> None:
    """Last goes what was not understood. What no reader bears stays, and what waits for a person to judge it."""
    mails = {
        "strange": STRANGE,
        "poison": inbox.MAIL % 1 + b"die!",
        "forged": FORGED,
        "old": inbox.MAIL % 2 + b"x" * 700,
        "young": inbox.MAIL % 3 + b"x" * 700,
    }
    names = list(mails)

    async def main() -> None:
        with inbox.database_at(database_url) as database:
            inbox.arrive(database, *mails.values())
            async with inbox.recording(database) as (one, _):
                await inbox.record_all(one, database)
            async with _mailbox(1) as simulator:
                for left in (names[:3] + names[4:], names[:3], names[1:3]):
                    fetch = _fetcher(database, simulator.pop3_port, budget_octets=await _held(database))
                    await fetch.fetch()
                    assert [name for name in mails if mails[name] in inbox.kept(database)] == left
                simulator.maildrop.put(inbox.MAIL % 5)
                budget = min(await _held(database), sum(len(mails[name]) for name in left))
                await _fetcher(database, simulator.pop3_port, budget_octets=budget).fetch()
                assert len(simulator.maildrop) == 1

    asyncio.run(main())


def test_poison_takes_room_until_it_is_dropped_and_the_alarm_says_how_much(database_url: str) -> None:
    poison, ordinary = inbox.MAIL % 1 + b"die!", inbox.MAIL % 2

    async def main() -> None:
        with inbox.database_at(database_url) as database, capture_logs() as logged:
            inbox.arrive(database, poison, ordinary)
            async with inbox.recording(database) as (one, _), _mailbox(1) as simulator:
                await inbox.record_all(one, database)
                fetch = _fetcher(database, simulator.pop3_port, budget_octets=len(poison)).fetch
                for _ in range(2):
                    assert not await fetch()
                assert (len(simulator.maildrop), inbox.kept(database)) == (1, [poison])
                with database.begin() as connection:
                    (row,) = inbound_mail.puzzling(connection)
                    inbound_mail.drop(connection, row.id, who="ada")
                await fetch()
                assert len(simulator.maildrop) == 0
        told = [each for each in logged if each["event"].startswith("mailbox")]
        assert [each["event"] for each in told] == ["mailbox.budget_exceeded", "mailbox.recovered"]
        assert (told[0]["held_octets"], told[0]["poison_octets"]) == (len(poison), len(poison))

    asyncio.run(main())


async def _held(database: Database) -> int:
    return await database.read(inbound_mail.held_octets)


def test_of_a_large_mail_counts_what_was_fetched(sqlite_url: str) -> None:
    with inbox.database_at(sqlite_url) as database, database.begin() as connection:
        arrivals = [
            Arrival("large", inbox.MAIL % 1, 50_000_000, truncated=True),
            Arrival("small", inbox.MAIL % 2, len(inbox.MAIL % 2), truncated=False),
        ]
        inbound_mail.keep(connection, 1, arrivals, now=NOW)
        held = inbound_mail.held_octets(connection)
        assert held == sum(arrival.held_octets for arrival in arrivals) < 1000


def test_understood_mail_is_kept_for_its_time(database_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(database_url) as database, capture_logs() as logged:
            inbox.arrive(database, STRANGE, inbox.MAIL % 1, inbox.MAIL % 2)
            async with inbox.recording(database) as (one, _):
                await inbox.record_all(one, database)
            with database.begin() as connection:
                old = tables.inbound_mail.c.id < 3
                values = {"fetched_at": NOW - timedelta(days=91)}
                connection.execute(tables.inbound_mail.update().where(old).values(values))
            async with inbox.recording(database) as (one, _):
                await one._purge()
            assert inbox.kept(database) == [STRANGE, inbox.MAIL % 2]
        assert [each["mails"] for each in logged if each["event"] == "mail.purged"] == [1]

    asyncio.run(main())


def test_a_mailbox_that_is_down_is_tried_again_until_stopped(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedPop3({"PASS": b"-ERR [IN-USE] locked\r\n"}) as server:
                stopping = asyncio.Event()
                running = asyncio.create_task(_fetcher(database, server.port).run(stopping))
                await server.hears("PASS")
                stopping.set()
                await running
            assert "QUIT" not in server.heard
            assert inbox.mails(database) == []

    asyncio.run(main())


def test_a_mailbox_that_stays_locked_alarms_once_at_the_third_try(sqlite_url: str) -> None:
    with inbox.database_at(sqlite_url) as database, capture_logs() as logged:
        one = _fetcher(database, 0)
        locked = SessionError(Trouble.IN_USE, "locked by another session")
        waits = [one._failed(locked) for _ in range(8)]
        one._recovered()
    assert [each["log_level"] for each in logged] == [
        *["warning"] * 2,
        "error",
        *["warning"] * 5,
        "info",
    ]
    assert waits == sorted(waits)
    assert waits[0] >= 5
    assert waits[-1] < 1200


def test_a_server_is_not_asked_more_often_than_it_likes(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            script = {"CAPA": b"+OK\r\nUSER\r\nUIDL\r\nLOGIN-DELAY 700\r\n.\r\n", "LIST": b"+OK\r\n.\r\n"}
            async with ScriptedPop3(script) as server:
                one, stopping = (
                    _fetcher(database, server.port, poll=timedelta(milliseconds=1)),
                    asyncio.Event(),
                )
                running = asyncio.create_task(one.run(stopping))
                await server.hears("QUIT")
                for _ in range(100):
                    await database.read(inbound_mail.held_octets)
                stopping.set()
                await running
                assert server.heard.count("QUIT") == 1

    asyncio.run(main())


# --- recording --------------------------------------------------------------------------------------------


async def _until(database: Database, condition: sa.ColumnElement[bool]) -> None:
    """Wait until it holds for some mail."""
    query = sa.select(tables.inbound_mail.c.id).where(condition)
    while not await database.read(lambda connection: connection.execute(query).first()):
        pass  # reading lets the others run


def test_mail_is_read_in_batches_and_only_once(database_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(database_url) as database:
            inbox.arrive(database, *(inbox.MAIL % number for number in range(630)))
            async with inbox.recording(database) as (one, _):
                assert [await one.record() for _ in range(2)] == [630, 0]
            mails = inbox.mails(database)
            assert {(mail.state, mail.attempts, mail.kind) for mail in mails} == {("read", 1, Kind.ORDINARY)}
            assert [mail.subject for mail in mails] == [f"mail {number}" for number in range(630)]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("words", "seconds", "why"),
    [
        pytest.param(b"die!", 10.0, "it killed the reader", id="kills"),
        pytest.param(b"burst!", 10.0, "MemoryError", id="is too large"),
        pytest.param(b"hang!", 1.0, "it took longer than 1 s", id="takes too long"),
    ],
)
def test_a_mail_that_no_reader_bears_is_set_aside_and_the_rest_goes_on(
    sqlite_url: str, words: bytes, seconds: float, why: str
) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            bad = inbox.MAIL % 0 + words
            inbox.arrive(database, inbox.MAIL % 1, bad, inbox.MAIL % 2)
            async with inbox.recording(database, seconds=seconds) as (one, reader):
                with pytest.raises(Unreadable, match=f"reading it failed: {why}"):
                    await inbox.read(reader, bad)
                seen = []
                while await one.record():
                    seen.append([(mail.state, mail.attempts) for mail in inbox.mails(database)])
            assert seen == [
                [("read", 1), ("new", 1), ("read", 1)],
                [("read", 1), ("new", 2), ("read", 1)],
                [("read", 1), ("poison", 3), ("read", 1)],
            ]
            assert inbox.mails(database)[1].why == "reading it failed 2 times"
            assert inbox.kept(database)[1] == bad, "it is kept, for a person to see"

    asyncio.run(main())


def test_many_mails_are_taken_bit_by_bit_and_each_is_recorded_once(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(recorder, "_BATCH", 2)
        with inbox.database_at(sqlite_url) as database:
            inbox.arrive(database, *(inbox.MAIL % number for number in range(11)))
            async with inbox.recording(database) as (one, _):
                assert [await one.record(), await one.record()] == [11, 0]
            assert [(mail.state, mail.attempts) for mail in inbox.mails(database)] == [("read", 1)] * 11

    asyncio.run(main())


def test_a_mail_that_was_tried_before_is_read_alone(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(recorder, "_BATCH", 2)
        with inbox.database_at(sqlite_url) as database:
            inbox.arrive(database, *(inbox.MAIL % number for number in range(5)))
            with database.begin() as connection:
                tried = tables.inbound_mail.c.id.in_([1, 4])
                connection.execute(tables.inbound_mail.update().where(tried).values(attempts=1))
            async with inbox.recording(database) as (one, _):
                assert [await one.record() for _ in range(5)] == [1, 2, 1, 1, 0]

    asyncio.run(main())


def test_a_reader_that_is_killed_from_outside_is_replaced_and_costs_no_mail_a_try(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            inbox.arrive(database, *(inbox.MAIL % number for number in range(3)))
            async with inbox.recording(database) as (one, reader):
                await inbox.read(reader, inbox.MAIL % 0)
                assert reader._worker is not None
                process = reader._worker.process
                assert process.pid is not None
                os.kill(process.pid, signal.SIGSTOP)  # so that it cannot be quicker than we are
                recording = asyncio.create_task(one.record())
                await _until(database, tables.inbound_mail.c.attempts == 1)
                os.kill(process.pid, signal.SIGKILL)
                assert await recording == 3
            assert {(mail.state, mail.attempts) for mail in inbox.mails(database)} == {("read", 1)}

    asyncio.run(main())


def test_mail_is_no_poison_because_the_daemon_died_while_reading_it(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            inbox.arrive(database, *(inbox.MAIL % number for number in range(5)))
            for _ in range(3):
                await database.run(inbound_mail.take, limit=100)  # and then it died
            async with inbox.recording(database) as (one, _):
                await inbox.record_all(one, database)
            states = [mail.state for mail in inbox.mails(database)]
            assert states[1:] == ["read"] * 4, "only the one that was alone when it died twice is suspect"

    asyncio.run(main())


def test_a_mail_that_nobody_understands_stays_to_be_shown(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            inbox.arrive(database, FORGED, b"\0\xff\r\n" * 10)
            async with inbox.recording(database) as (one, _):
                await one.record()
            assert [mail.state for mail in inbox.mails(database)] == ["read", "read"]
            with database.look() as connection:
                dispositions = connection.execute(sa.select(tables.bounce.c.disposition)).scalars().all()
            assert set(dispositions) <= {"quarantined"}

    asyncio.run(main())


def test_the_log_calls_a_mail_what_the_table_does(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database, capture_logs() as logged:
            inbox.arrive(database, STRANGE, inbox.MAIL % 1)
            async with inbox.recording(database) as (one, _):
                await one.record()
            told = [(each["log_level"], each["kind"]) for each in logged if each["event"] == "mail.read"]
            assert told == [("warning", "unrecognised"), ("info", "ordinary")]
            assert [mail.kind for mail in inbox.mails(database)] == ["unrecognised", "ordinary"]

    asyncio.run(main())


def test_a_recorder_that_waits_stops_at_once_and_wakes_for_mail(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with inbox.recording(database) as (one, _):
                stopping = asyncio.Event()
                running = asyncio.create_task(one.run(stopping))
                await database.read(inbound_mail.held_octets)
                inbox.arrive(database, inbox.MAIL % 0)
                one.wake()
                await _until(database, tables.inbound_mail.c.state == "read")
                stopping.set()
                await running
            assert [mail.attempts for mail in inbox.mails(database)] == [1]

    asyncio.run(main())


def test_whoever_is_asked_ahead_answers_the_right_question() -> None:
    async def main() -> None:
        reader = Reader(read=inbox.read_or_die)
        try:
            mails = [inbox.MAIL % number for number in range(6)]
            mails[4] += b"die!"
            asked = [
                asyncio.create_task(reader.read_all([(packing.alone(mail), Arrived(None, 1, NOW))] * 2, {}))
                for mail in mails
            ]
            await asyncio.sleep(0)  # all of them wait
            for given_up in (asked[1], asked[2]):
                given_up.cancel()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            said = [each if isinstance(each, BaseException) else each[1] for each in answers]
            subjects = [each.subject if isinstance(each, Said) else type(each).__name__ for each in said]
            cancelled = "CancelledError"
            assert subjects == ["mail 0", cancelled, cancelled, "mail 3", "Unreadable", "mail 5"]
        finally:
            reader.close()

    asyncio.run(main())


def test_a_worker_that_needs_too_much_memory_does_not_take_the_machine_with_it() -> None:
    async def main() -> None:
        reader = Reader(read=inbox.read_or_die)
        try:
            large = packing.alone(inbox.MAIL % 1 + b"x" * 600_000_000)
            greedy = packing.alone(inbox.MAIL % 2 + b"devour!")
            here = Arrived(None, 1, NOW)
            outcomes = await reader.read_all([(large, here), (greedy, here)], {})
            assert isinstance(outcomes[0], Said)
            assert re.search("MemoryError|killed", str(outcomes[1]))
            assert (await inbox.read(reader, inbox.MAIL % 1)).subject == "mail 1"
        finally:
            reader.close()

    asyncio.run(main())


# --- of many nodes ----------------------------------------------------------------------------------------


def test_a_mailbox_and_the_reading_are_left_to_the_node_that_has_them(postgres_url: str) -> None:
    async def scenario(database: Database) -> None:
        opened: list[int] = []

        async def open_mailbox() -> mailbox.Mailbox:
            opened.append(1)
            raise MailboxError("it is open enough for this test")

        await database.run(_take_all)
        inbox.arrive(database, b"Subject: hello\r\n\r\nHello\r\n")
        async with inbox.recording(database) as (one, _):
            for loop in (_fetcher(database, 0, open=open_mailbox), one):
                stopping = asyncio.Event()
                running = asyncio.create_task(loop.run(stopping))
                for _ in range(2):
                    before = loop.ticked_at
                    while loop.ticked_at == before:
                        one.wake()
                        await asyncio.sleep(0.01)
                stopping.set()
                await running
        assert opened == []
        tries = sa.select(tables.inbound_mail.c.attempts)
        assert await database.read(lambda connection: connection.execute(tries).scalars().all()) == [0]

    with inbox.database_at(postgres_url) as database:
        asyncio.run(scenario(database))


def _take_all(connection: sa.Connection) -> None:
    other = nodes.join(connection, "other", now=NOW)
    assert all(leases.take(connection, work, node_id=other) for work in ("reading", "fetching main"))

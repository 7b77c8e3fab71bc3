"""What a crash leaves: the daemon is killed at exact moments, started again, and held to what the relay wrote down.

`crashing` does so at random moments, and as a program as often as you like.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import crashing
from box import Box
from commit_cutter import CommitCutter
from ledger_relay import LedgerRelay, Point
from mailbound.database import tables, tally
from servers.postgres import Postgres

_PEOPLE = 60
_REPORTS = 30
_CONNECTIONS = 4
_KILLS = 25
_SEED = 1

_ADDRESSES = {f"person-{number}": f"person-{number}@remote.test" for number in range(_PEOPLE)}
_DEAD_ADDRESSES = {f"dead-{number}": f"bounce+5.1.1-{number}@remote.test" for number in range(_REPORTS)}


# --- a run ------------------------------------------------------------------------------------------------

_BEFORE_THE_DOT = {
    "greeted": Point("server", "220 "),
    "MAIL sent": Point("client", "MAIL ", 7),
    "RCPT sent": Point("client", "RCPT ", 13),
    "DATA sent": Point("client", "DATA", 19),
    "354 under way": Point("server", "354 ", 25),
    "body begun": Point("client", "Subject:", 31),
}
_IN_DOUBT = {
    "first dot held": Point("client", r"\.\r\n", 1),
    "dot held": Point("client", r"\.\r\n", 29),
    "accepted, reply held": Point("server", "250 2.0.0 Ok: queued", 37),
    "accepted, reply passed": Point("server", "250 2.0.0 Ok: queued", 43, passed=True),
    "last reply held": Point("server", "250 2.0.0 Ok: queued", _PEOPLE),
    "last reply passed": Point("server", "250 2.0.0 Ok: queued", _PEOPLE, passed=True),
}
_POINTS = {**_BEFORE_THE_DOT, **_IN_DOUBT}


@contextmanager
def _run_to_be(
    folder: Path,
    url: str,
    *,
    in_doubt: str = "resend",
    connections: int = _CONNECTIONS,
    pipelining: bool = True,
    proxy: int = 0,
) -> Iterator[tuple[Box, LedgerRelay]]:
    """Give a daemon, not yet started, with a run that is due, and its relay; `proxy` is its way to the database."""
    seen = sa.make_url(url).set(port=proxy).render_as_string(hide_password=False) if proxy else url
    with (
        LedgerRelay(folder / "ledger", pipelining=pipelining) as relay,
        Box(folder, url=seen, in_doubt=in_doubt, connections=connections, **relay.settings) as box,
    ):
        box.url = url
        box.populate(_ADDRESSES)
        box.schedule("spring")
        yield box, relay


def _copy_database(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for file in source.glob("mailbound.db*"):
        shutil.copy(file, target)


def _kill_at(point: Point, box: Box, tap: str, relay: LedgerRelay) -> None:
    async def deed() -> bool:
        box.strike()
        return False

    getattr(relay, tap).at(point, deed)


def _finish(box: Box) -> None:
    """Start the daemon again, let it bring the run to its end, and stop it in good order."""
    box.bury()
    box.take_over()
    box.start()
    box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
    assert box.stop() == 0


def _check(box: Box, relay: LedgerRelay, *, in_doubt: str, kills: int = 1) -> None:
    """Hold the database to the ledger."""
    ledger = relay.ledger()
    times = Counter(address for _, address in ledger)
    states = {_ADDRESSES[name]: state for name, state in box.states("spring").items()}
    bound = kills * int(box.settings["connections"])
    assert set(states) == set(_ADDRESSES.values())
    assert len(set(ledger)) == len(times), "who is written to twice gets the same Message-ID twice"
    doubled = {address for address, count in times.items() if count > 1}
    assert len(doubled) <= bound
    if in_doubt == "resend":
        assert set(states.values()) == {"accepted"}
        assert set(times) == set(states), "nobody is forgotten"
    else:
        assert doubled == set(), "nobody gets it twice"
        unknown = {address for address, state in states.items() if state == "unknown"}
        assert set(states.values()) <= {"accepted", "unknown"}
        assert len(unknown) <= bound
        assert set(states) - set(times) <= unknown, "who did not get it is shown"
    accepted = {address for address, state in states.items() if state == "accepted"}
    assert accepted <= set(times), "the database claims no more than the relay wrote down"
    _check_database(box)


def _check_database(box: Box) -> None:
    with box.database.look() as connection:
        assert tally.differences(connection) == []
        if not box.database.is_sqlite:
            return
        assert connection.execute(sa.text("PRAGMA integrity_check")).scalars().all() == ["ok"]
        assert connection.execute(sa.text("PRAGMA foreign_key_check")).all() == []


def _survives(point: Point, folder: Path, url: str, *, in_doubt: str = "resend", **more: Any) -> None:
    """Kill a daemon at a point of its run, let another one finish, and compare."""
    with _run_to_be(folder, url, in_doubt=in_doubt, **more) as (box, relay):
        _kill_at(point, box, "smtp", relay)
        box.launch()
        box.ended()
        _finish(box)
        _check(box, relay, in_doubt=in_doubt)


@pytest.mark.parametrize("point", _POINTS.values(), ids=_POINTS)
def test_a_run_that_was_killed_is_finished_and_nobody_forgotten(
    tmp_path: Path, sqlite_url: str, point: Point
) -> None:
    _survives(point, tmp_path, sqlite_url)


@pytest.mark.parametrize("point", list(_IN_DOUBT.values())[:2], ids=list(_IN_DOUBT)[:2])
def test_so_it_is_on_postgresql(tmp_path: Path, postgres_url: str, point: Point) -> None:
    _survives(point, tmp_path, postgres_url)


@pytest.mark.parametrize("point", list(_IN_DOUBT.values())[1:4], ids=list(_IN_DOUBT)[1:4])
def test_so_it_is_with_a_relay_that_takes_one_command_at_a_time(
    tmp_path: Path, sqlite_url: str, point: Point
) -> None:
    _survives(point, tmp_path, sqlite_url, pipelining=False)


@pytest.mark.parametrize("point", list(_IN_DOUBT.values())[1:5], ids=list(_IN_DOUBT)[1:5])
def test_with_hold_nobody_gets_it_twice(tmp_path: Path, sqlite_url: str, point: Point) -> None:
    _survives(point, tmp_path, sqlite_url, in_doubt="hold", connections=1)


@pytest.mark.parametrize(
    "committed", [False, True], ids=["marks not committed", "marks committed, dots held"]
)
@pytest.mark.parametrize("count", [9, 24])
def test_a_kill_at_a_commit_leaves_in_doubt_only_what_was_marked(
    tmp_path: Path, postgres: Postgres, postgres_url: str, *, count: int, committed: bool
) -> None:
    """The letters wait for their dots: what the commit marks is in doubt, though no dot goes out."""
    cutter = CommitCutter(postgres.port, committed=committed, every=count)
    with cutter, _run_to_be(tmp_path, postgres_url, proxy=cutter.port) as (box, relay):
        cutter.then = box.strike
        cutter.armed = True
        box.launch()
        box.ended()
        cutter.armed = False
        box.bury()
        in_doubt = box.counts("spring")["sending"]
        assert in_doubt <= _CONNECTIONS
        sent_before = len(relay.ledger())
        assert sent_before <= box.counts("spring")["accepted"] + in_doubt
        _finish(box)
        _check(box, relay, in_doubt="resend")


_TEARS: dict[str, Callable[[bytes], bytes]] = {
    "in its last frame": lambda log: log[:-1000],
    "a third is gone": lambda log: log[: len(log) * 2 // 3],
    "its end is noise": lambda log: log[:-6000] + random.Random(_SEED).randbytes(6000),
}


@pytest.mark.parametrize("tear", _TEARS.values(), ids=_TEARS)
def test_a_log_that_lost_its_end_with_the_power_forgets_nobody(
    tmp_path: Path, sqlite_url: str, tear: Callable[[bytes], bytes]
) -> None:
    """SQLite goes back to the last commit that is whole, and who was sent to since then is sent to again."""
    with _run_to_be(tmp_path, sqlite_url) as (box, relay):
        box.database.release()  # so that only the daemon's own transactions are in the log
        _kill_at(_IN_DOUBT["accepted, reply passed"], box, "smtp", relay)
        box.launch()
        box.ended()
        sent = len(relay.ledger())
        _copy_database(tmp_path, tmp_path / "disk")
        (tmp_path / "disk" / "mailbound.db-shm").unlink()  # it was in memory
        log = tmp_path / "disk" / "mailbound.db-wal"
        log.write_bytes(tear(log.read_bytes()))
        with Box(tmp_path / "disk", connections=_CONNECTIONS, **relay.settings) as after:
            _finish(after)
            assert after.counts("spring") == {"accepted": _PEOPLE}
            times = Counter(address for _, address in relay.ledger())
            assert set(times) == set(_ADDRESSES.values())
            assert sum(times.values()) <= _PEOPLE + sent
            _check_database(after)


def _launch_doomed(box: Box, call: str) -> None:
    """Run the daemon until the n-th call of that name by one of its threads, and kill it there."""
    name, count = call.split(":")
    inject = f"inject={name}:signal=SIGKILL:when={count}"
    quietly = ["-f", "-qq", "-o", "/dev/null"]
    box.launch(prefix=["strace", *quietly, "-e", f"trace={name}", "-e", inject])
    assert box.ended() == -9


# --- a batch of mail --------------------------------------------------------------------------------------

_BATCH = {
    "logged in": Point("client", "PASS "),
    "list under way": Point("client", "LIST"),
    "listed": Point("client", "RETR ", 1),
    "in the middle of a mail": Point("server", "Subject:", 11),
    "all but the last mail": Point("server", "Subject:", _REPORTS),
    "stored, nothing marked": Point("client", "DELE ", 1),
    "half of it marked": Point("client", "DELE ", _REPORTS // 2),
    "all marked, QUIT held": Point("client", "QUIT"),
    "QUIT passed": Point("client", "QUIT", passed=True),
    "deleted, reply held": Point("server", r"\+OK bye"),
    "deleted, reply passed": Point("server", r"\+OK bye", passed=True),
}
_BATCH_SYSCALLS = [f"fdatasync:{count}" for count in (4, 5, 6)]
"""The commits around the start, the mail being stored, and the mail being read."""


@pytest.fixture(scope="module")
def harvest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the database after a run that bounced, and a file of each report to come."""
    folder = tmp_path_factory.mktemp("harvest")
    with LedgerRelay(folder / "ledger", form="postfix", delay_seconds=0.0) as relay:
        with Box(folder, connections=_CONNECTIONS, outbound=relay.settings["outbound"]) as box:
            box.populate(_DEAD_ADDRESSES)
            box.schedule("spring")
            box.start()
            box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
            box.kill()
        relay.call(relay.simulator.quiet())
        for uid, content in relay.simulator.maildrop.messages():
            (folder / f"{uid}.eml").write_bytes(content)
    assert len(list(folder.glob("*.eml"))) == _REPORTS
    return folder


@contextmanager
def _full_mailbox(folder: Path, harvest: Path) -> Iterator[tuple[Box, LedgerRelay]]:
    """Give a daemon, not yet started, and its mailbox with the reports."""
    _copy_database(harvest, folder)
    with LedgerRelay(folder / "ledger") as relay:
        for file in sorted(harvest.glob("*.eml")):
            relay.simulator.maildrop.put(file.read_bytes())
        unguarded = "[guard]\ncount = 1000"  # all of them are of one text, and shall count
        with Box(folder, more=unguarded, **relay.settings) as box:
            yield box, relay


def _kept(box: Box) -> set[str]:
    return {row.uid for row in box.rows(sa.select(tables.inbound_mail.c.uid))}


def _drain(box: Box, relay: LedgerRelay) -> None:
    """Start the daemon again, let it empty the mailbox and read everything, and stop it in good order."""
    unread = sa.select(tables.inbound_mail.c.id).where(tables.inbound_mail.c.state == "new")
    box.start()
    box.wait(lambda: not len(relay.simulator.maildrop), "the mailbox to be emptied")
    box.wait(lambda: not box.rows(unread), "the mail to be read")
    assert box.stop() == 0


def _check_mail(box: Box) -> None:
    """See that each report counts, and once."""
    mails = box.rows(sa.select(tables.inbound_mail.c.sha256, tables.inbound_mail.c.state))
    assert Counter(row.state for row in mails) == {"read": _REPORTS}
    assert len({row.sha256 for row in mails}) == _REPORTS
    recorded = Counter(row.delivery_id for row in box.rows(sa.select(tables.bounce.c.delivery_id)))
    assert len(recorded) == _REPORTS
    assert set(recorded.values()) == {1}
    assert box.counts("spring") == {"bounced": _REPORTS}
    statuses = box.rows(sa.select(tables.recipient_status.c.status))
    assert Counter(row.status for row in statuses) == {"undeliverable": _REPORTS}
    wishes = box.rows(sa.select(tables.opt_in.c.receive, tables.opt_in.c.source))
    assert Counter((row.receive, row.source) for row in wishes) == {(False, "hard_bounce"): _REPORTS}
    _check_database(box)


@pytest.mark.parametrize("point", _BATCH.values(), ids=_BATCH)
def test_a_batch_of_mail_that_was_killed_counts_once(tmp_path: Path, harvest: Path, point: Point) -> None:
    with _full_mailbox(tmp_path, harvest) as (box, relay):
        everything = {uid for uid, _ in relay.simulator.maildrop.messages()}
        _kill_at(point, box, "pop3", relay)
        box.launch()
        box.ended()
        there = {uid for uid, _ in relay.simulator.maildrop.messages()}
        assert everything - there <= _kept(box), "nothing is deleted that is not stored"
        _drain(box, relay)
        _check_mail(box)


@pytest.mark.parametrize("call", _BATCH_SYSCALLS)
def test_mail_counts_once_whichever_commit_was_cut_off(tmp_path: Path, harvest: Path, call: str) -> None:
    with _full_mailbox(tmp_path, harvest) as (box, relay):
        everything = {uid for uid, _ in relay.simulator.maildrop.messages()}
        _launch_doomed(box, call)
        there = {uid for uid, _ in relay.simulator.maildrop.messages()}
        assert everything - there <= _kept(box), "nothing is deleted that is not stored"
        _drain(box, relay)
        _check_mail(box)


# --- again and again --------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_killed_again_and_again_it_loses_nobody_and_doubles_only_what_was_in_doubt(
    tmp_path: Path, database_url: str
) -> None:
    with crashing.campaign(tmp_path / "campaign", database_url, seed=_SEED) as campaign:
        for _ in range(_KILLS):
            campaign.kill()
        campaign.finish()
        assert campaign.reckoning.faults == []
        assert campaign.reckoning.lost() == []
        assert campaign.counts()["letters"] > _KILLS

"""When the database cannot be written: no letter goes out that is not marked, and afterwards it goes on by itself.

The daemon is never killed here, so nobody is doubled, and no attempt is counted that was none.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

import impatient
from box import DAEMON, Box
from commit_cutter import CommitCutter
from mailbound import service
from mailbound.database import token_keys
from mailbound.database.tables import delivery
from reckoning import Reckoning
from relay_process import RelayProcess
from servers import need, need_root
from servers.postgres import Postgres, Standby

_PEOPLE = {f"person-{number}": f"person-{number}@domain-{number % 3}.test" for number in range(400)}
_CONNECTIONS = 4
_RATE = 200  # so that the fault comes in the middle, however fast the machine
_PATIENCE_SECONDS = 60.0


class Sending:
    """A daemon in the middle of a run, and its relay."""

    def __init__(self, box: Box, relay: RelayProcess) -> None:
        """Begin with people, and a run that is due."""
        self.box = box
        self._relay = relay
        box.populate(_PEOPLE)
        with box.database.begin() as connection:
            token_keys.signing(connection, now=datetime.now(UTC))
        box.schedule("spring")
        self._reckoning = Reckoning(box.database, relay.ledger, connections=_CONNECTIONS)

    def letters(self) -> int:
        """Return how many letters the relay took."""
        return self._relay.ledger.read_bytes().count(b"\n")

    def marked(self) -> int:
        """Return how many deliveries were marked, durably."""
        query = sa.select(sa.func.count()).where(delivery.c.attempt > 0)
        return int(self.box.rows(query)[0][0])

    def await_letters(self, count: int) -> None:
        """Return once the relay took so many."""
        self.box.wait(lambda: self.letters() >= count, f"{count} letters")

    def stands_still(self, *, seconds: float = 1.0) -> None:
        """Return once no letter came for so long, though there are more to send."""
        until = time.monotonic() + _PATIENCE_SECONDS
        count, since = self.letters(), time.monotonic()
        while time.monotonic() - since < seconds:
            time.sleep(0.02)
            if (now := self.letters()) != count:
                count, since = now, time.monotonic()
            assert time.monotonic() < until, "it goes on sending"
        assert count < len(_PEOPLE)

    def restart(self) -> None:
        """Look at what the daemon that ended left, and start the next one."""
        self._reckoning.after_kill()
        self.box.start()

    def finish(self, *, doubled: int = 0) -> None:
        """See it go on by itself, and everybody get one letter, but for those `doubled` at most."""
        self.box.wait(lambda: self.box.run_state("spring") == "sent", "the run to be sent")
        assert self.box.stop() == 0
        self._reckoning.at_end()
        assert self._reckoning.faults == []
        assert self._reckoning.lost() == []
        assert self._reckoning.doubled <= doubled
        assert self.letters() == len(_PEOPLE) + self._reckoning.doubled

    def finish_after_a_lag(self, *, unheard: int) -> None:
        """See it go on, and everybody get their letter; those of which the database forgot once more."""
        self.box.wait(lambda: self.box.run_state("spring") == "sent", "the run to be sent")
        assert self.box.stop() == 0
        assert self.box.counts("spring") == {"accepted": len(_PEOPLE)}
        assert self.told().count("database.replaced") == 1
        self._reckoning.at_end()
        assert self._reckoning.lost() == []
        assert 0 < self._reckoning.doubled <= unheard + _CONNECTIONS

    def failures(self) -> int:
        """Return how often the log told that the database failed."""
        return self.told().count("database.failed")

    def told(self) -> list[str]:
        """Return what the log told of the database."""
        return [event["event"] for event in self.box.events() if event["event"].startswith("database.")]


@contextlib.contextmanager
def _sending(folder: Path, url: str, *, proxy: str = "") -> Iterator[Sending]:
    """Give a daemon, not yet started; it finds the database at `proxy`, if that is said."""
    with RelayProcess(folder / "ledger") as relay:
        paced = {**relay.settings, "outbound": f"{relay.settings['outbound']}\nrate = {_RATE}"}
        with Box(folder, url=proxy or url, connections=_CONNECTIONS, **paced) as box:
            box.url = url
            yield Sending(box, relay)


# --- SQLite -----------------------------------------------------------------------------------------------


def test_a_writer_who_keeps_the_database_locked_is_waited_for(tmp_path: Path, sqlite_url: str) -> None:
    with _sending(tmp_path, sqlite_url) as sending:
        sending.box.start()
        sending.await_letters(50)
        other = sqlite3.connect(tmp_path / "mailbound.db", isolation_level=None, timeout=10)
        other.execute("BEGIN IMMEDIATE")
        marked = sending.marked()
        sending.stands_still(seconds=11)  # SQLite itself waits for ten
        assert sending.letters() == marked
        other.execute("ROLLBACK")
        other.close()
        sending.finish()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a small file system."""
    need_root()
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        [need("mount"), "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run([need("umount"), "--lazy", str(folder)], check=True)


def test_a_full_disk_is_waited_for(tmp_path: Path, disk: Path) -> None:
    with _sending(tmp_path, f"sqlite:///{disk}/mailbound.db") as sending:
        sending.box.start()
        sending.await_letters(50)
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        sending.stands_still(seconds=2)
        assert sending.letters() <= sending.marked()
        assert sending.failures()
        ballast.unlink()
        sending.box.wait(lambda: "database.recovered" in sending.told(), "it to be well")
        sending.finish()
        assert sending.told() == ["database.failed", "database.recovered"], "once, whoever waits"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("pwrite64:error=EIO:when=150..152", id="it cannot be written"),
        pytest.param("pwrite64:error=ENOSPC:when=150..152", id="no space is left"),
    ],
)
def test_a_disk_that_fails_for_a_while_is_waited_for(tmp_path: Path, sqlite_url: str, fault: str) -> None:
    with _sending(tmp_path, sqlite_url) as sending:
        sending.box.launch(prefix=_inject(fault))
        sending.box.wait(lambda: bool(sending.failures()), "the fault")
        assert sending.letters() <= sending.marked()
        sending.finish()


def test_a_disk_that_cannot_sync_ends_the_daemon_and_the_next_one_goes_on_from_what_it_holds(
    tmp_path: Path, sqlite_url: str
) -> None:
    with _sending(tmp_path, sqlite_url) as sending:
        sending.box.launch(prefix=_inject("fdatasync:error=EIO:when=40"))  # the next one would succeed
        assert sending.box.ended() == service.DISK_FAULT
        assert [event["event"] for event in sending.box.events()][-1] == "disk.failed"
        assert sending.failures() == 0, "nobody tried again"
        assert 0 < sending.letters() < len(_PEOPLE)
        sending.restart()
        sending.finish(doubled=_CONNECTIONS)


def _inject(fault: str) -> list[str]:
    """Return what to start a program with, for a system call to fail in it."""
    name, _, _ = fault.partition(":")
    return ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={fault}"]


# --- PostgreSQL -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Return a PostgreSQL that keeps what it acknowledged, even if it crashes."""
    with Postgres(synchronous_commit="on") as running:
        yield running


@pytest.fixture
def url(server: Postgres) -> Iterator[str]:
    """Return the URL of an empty database there."""
    with server.database() as made:
        yield made


def test_connections_that_are_ended_in_the_middle_are_opened_anew(tmp_path: Path, url: str) -> None:
    end = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        f" WHERE application_name = '{DAEMON}' AND datname = current_database()"
    )
    with _sending(tmp_path, url) as sending:
        sending.box.start()
        ended = 0
        for letters in range(40, 360, 20):
            sending.await_letters(letters)
            with sending.box.database.begin() as connection:
                ended += connection.execute(end).scalar_one()
        assert ended >= 16
        sending.finish()


def test_a_server_that_crashes_is_waited_for(tmp_path: Path, server: Postgres, url: str) -> None:
    with _sending(tmp_path, url) as sending:
        sending.box.start()
        for letters in (50, 200):
            sending.await_letters(letters)
            server.crash()
            try:
                sending.stands_still()
                sent = sending.letters()
            finally:
                server.start()
            assert sent <= sending.marked()
        sending.finish()


@pytest.mark.parametrize("committed", [True, False], ids=["after it was done", "before the server had it"])
def test_a_commit_whose_answer_was_lost_counts_once(
    tmp_path: Path, server: Postgres, url: str, *, committed: bool
) -> None:
    with CommitCutter(server.port, committed=committed, every=5) as cutter:
        proxy = url.replace(f":{server.port}/", f":{cutter.port}/")
        with _sending(tmp_path, url, proxy=proxy) as sending:
            sending.box.start()
            cutter.armed = True
            sending.await_letters(120)
            cutter.armed = False
            assert cutter.cuts >= 5
            sending.finish()


def test_who_sleeps_over_its_marks_sends_no_final_dot_when_it_wakes(
    tmp_path: Path, server: Postgres, url: str
) -> None:
    """It is suspended while it commits them: another may have given it up since."""
    with CommitCutter(server.port, committed=True, every=7) as cutter:
        proxy = url.replace(f":{server.port}/", f":{cutter.port}/")
        with _sending(tmp_path, url, proxy=proxy) as sending:
            sending.box.program[1:] = [impatient.__file__]
            sending.box.start()
            sending.await_letters(20)

            def suspend() -> None:
                cutter.armed = False
                sending.box.signal(signal.SIGSTOP)

            cutter.then = suspend
            while not any(event["event"] == "delivery.withdrawn" for event in sending.box.events()):
                slept, cuts = sending.letters(), cutter.cuts
                assert slept < len(_PEOPLE) // 2, "it never had to withdraw a letter"
                cutter.armed = True
                sending.box.wait(lambda count=cuts: cutter.cuts > count, "it to fall asleep")
                until = time.monotonic() + impatient.SECONDS + 0.5
                sending.box.wait(lambda moment=until: time.monotonic() > moment, "it to oversleep")
                sending.box.signal(signal.SIGCONT)
                sending.await_letters(slept + 20)
            sending.finish()


def test_a_standby_that_heard_of_every_commit_takes_over(tmp_path: Path) -> None:
    with Postgres(synchronous_commit="on") as primary, Standby(primary) as standby:
        url = standby.url(primary.make())
        primary.await_standby()
        with _sending(tmp_path, url) as sending:
            sending.box.start()
            sending.await_letters(100)
            primary.crash()
            sending.stands_still()
            standby.promote()
            sending.finish()


def test_a_standby_that_lags_takes_over_and_only_what_it_had_not_heard_of_is_sent_again(
    tmp_path: Path,
) -> None:
    with Postgres(synchronous_commit="on") as primary, Standby(primary) as standby:
        url = standby.url(primary.make())
        with _sending(tmp_path, url) as sending:
            sending.box.start()
            sending.await_letters(100)
            heard = sending.letters()
            standby.crash()
            sending.await_letters(heard + 120)
            primary.crash()
            sending.stands_still()
            unheard = sending.letters() - heard
            standby.start()
            standby.promote()
            sending.finish_after_a_lag(unheard=unheard)

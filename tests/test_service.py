"""The daemon as systemd and an operator meet it: start, reload, stop, and runs that wait, pause and end."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from box import Box
from ledger_relay import Gate, LedgerRelay, Point
from mailbound.database import tables, tally

_FINAL_REPLY = "250 2.0.0 Ok: queued"


@contextmanager
def _daemon(
    folder: Path,
    addresses: dict[str, str] | None = None,
    *,
    relay: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[tuple[Box, LedgerRelay]]:
    """Give a daemon, not yet started, with recipients, its relay and its mailbox."""
    with (
        LedgerRelay(folder / "ledger", **(relay or {})) as simulated,
        Box(folder, **{**simulated.settings, **settings}) as box,
    ):
        box.populate(addresses if addresses is not None else _people(5))
        yield box, simulated


def _people(count: int) -> dict[str, str]:
    return {f"person-{number}": f"person-{number}@remote.test" for number in range(count)}


def _runs(box: Box) -> list[Any]:
    return box.rows(sa.select(tables.run).order_by(tables.run.c.occurrence_at))


def _events(box: Box, name: str) -> list[dict[str, Any]]:
    return [event for event in box.events() if event["event"] == name]


def _check_tally(box: Box) -> None:
    with box.database.look() as connection:
        assert tally.differences(connection) == []


# --- what systemd sees ------------------------------------------------------------------------------------


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """Return a socket that plays systemd's; "abstract" as its parameter gives one without a file."""
    abstract = getattr(request, "param", "") == "abstract"
    name = f"\0{tmp_path}/notify" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name)
        channel.settimeout(30)
        yield channel


def _watched(box: Box, manager: socket.socket, **more: str) -> None:
    name = manager.getsockname()
    box.environment = {
        "NOTIFY_SOCKET": "@" + name[1:].decode() if isinstance(name, bytes) else name,
        **more,
    }


def _hear(manager: socket.socket) -> dict[str, str]:
    """Return the next message that is not the watchdog's."""
    said = {"WATCHDOG": "1"}
    while said == {"WATCHDOG": "1"}:
        said = dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())
    return said


@pytest.mark.parametrize("manager", ["file", "abstract"], indirect=True)
def test_it_is_ready_when_its_database_is_and_says_when_it_stops(
    tmp_path: Path, manager: socket.socket
) -> None:
    with LedgerRelay(tmp_path / "ledger") as relay, Box(tmp_path, **relay.settings) as box:
        _watched(box, manager)
        box.launch()
        ready = _hear(manager)
        assert box.rows(sa.select(tables.delivery.c.id)) == [], "the tables are there by now"
        assert ready["READY"] == "1"
        assert ready["STATUS"] == "at work for main"
        box.signal(signal.SIGTERM)
        stopping = _hear(manager)
        assert stopping["STOPPING"] == "1"
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 5_000_000, (
            "longer than it waits for a final dot's reply"
        )
        assert box.ended() == 0


def test_it_is_not_ready_while_its_database_cannot_be_migrated(
    tmp_path: Path, manager: socket.socket
) -> None:
    with LedgerRelay(tmp_path / "ledger") as relay, Box(tmp_path, **relay.settings) as box:
        _watched(box, manager)
        with closing(sqlite3.connect(tmp_path / "mailbound.db", isolation_level=None)) as other:
            other.execute("PRAGMA journal_mode = WAL")
            other.execute("BEGIN IMMEDIATE")
            box.launch()
            box.wait((tmp_path / "mailbound.db.lock").exists, "the daemon to get as far as the database")
            manager.settimeout(0.5)
            with pytest.raises(TimeoutError):
                _hear(manager)
            other.execute("ROLLBACK")
        manager.settimeout(30)
        assert _hear(manager)["READY"] == "1"
        assert box.stop() == 0


def test_a_reload_begins_and_ends_and_the_new_file_counts(tmp_path: Path, manager: socket.socket) -> None:
    with _daemon(tmp_path) as (box, relay):
        _watched(box, manager)
        box.launch()
        assert "READY" in _hear(manager)
        config = tmp_path / "config.toml"
        config.write_text(config.read_text().replace("hello@sender.test", "other@sender.test"))
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        box.signal(signal.SIGHUP)
        reloading = _hear(manager)
        assert reloading["RELOADING"] == "1"
        assert (
            before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        )
        assert _hear(manager)["READY"] == "1"
        box.schedule("spring")
        box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
        assert b"other@sender.test" in relay.simulator.messages[0].header
        assert box.stop() == 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace('poll = "1s"', 'poll = "soon"'), id="a value is bad"),
        pytest.param(lambda text: "= 1\n" + text, id="it cannot be read"),
        pytest.param(lambda text: text.replace("mailbound.db", "another.db"), id="the database is another"),
    ],
)
def test_a_bad_file_at_reload_changes_nothing(tmp_path: Path, manager: socket.socket, change: Any) -> None:
    with _daemon(tmp_path) as (box, _):
        _watched(box, manager)
        box.launch()
        assert "READY" in _hear(manager)
        config = tmp_path / "config.toml"
        config.write_text(change(config.read_text()))
        box.signal(signal.SIGHUP)
        assert _hear(manager)["RELOADING"] == "1"
        again = _hear(manager)
        assert again["READY"] == "1"
        assert "the old one stays" in again["STATUS"]
        box.wait(lambda: len(_events(box, "config.rejected")) == 1, "the log to say why")
        box.schedule("spring")
        box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
        assert box.stop() == 0


def test_it_says_at_once_that_it_stops_even_while_it_reloads(tmp_path: Path, manager: socket.socket) -> None:
    gate = Gate()
    with _daemon(tmp_path) as (box, relay):
        relay.smtp.at(Point("server", _FINAL_REPLY), gate)
        _watched(box, manager)
        box.schedule("spring")
        box.launch()
        box.wait(gate.reached, "what the gate holds back")
        assert "READY" in _hear(manager)
        box.signal(signal.SIGHUP)
        assert "RELOADING" in _hear(manager)
        box.wait(
            lambda: bool(_events(box, "config.reloaded")), "the reload to wait for the final dot's reply"
        )
        box.signal(signal.SIGTERM)
        assert "STOPPING" in _hear(manager)
        gate.open()
        assert box.ended() == 0
        assert set(box.states("spring").values()) <= {"accepted", "queued"}


def test_it_feeds_the_watchdog(tmp_path: Path, manager: socket.socket) -> None:
    with _daemon(tmp_path) as (box, _):
        _watched(box, manager, WATCHDOG_USEC="400000")
        box.launch()
        heard: list[bytes] = []
        while heard.count(b"WATCHDOG=1") < 3:
            heard.append(manager.recv(4096))
        assert box.stop() == 0


def test_the_reader_does_not_inherit_what_only_the_daemon_may_say(
    tmp_path: Path, manager: socket.socket
) -> None:
    with _daemon(tmp_path) as (box, relay):
        _watched(box, manager, WATCHDOG_USEC="30000000")
        relay.simulator.maildrop.put(b"Subject: hello\r\n\r\nHello\r\n")
        box.start()
        read = sa.select(tables.inbound_mail.c.id).where(tables.inbound_mail.c.state == "read")
        box.wait(lambda: bool(box.rows(read)), "the mail to be read")
        names = {Path(f"/proc/{child}/environ").read_bytes() for child in _children(box)}
        assert names
        assert not any(b"NOTIFY_SOCKET" in environment or b"WATCHDOG" in environment for environment in names)
        assert box.stop() == 0


def _children(box: Box) -> list[str]:
    assert box.process is not None
    files = Path(f"/proc/{box.process.pid}/task").glob("*/children")
    return [child for file in files for child in file.read_text().split()]


# --- starting ---------------------------------------------------------------------------------------------


def test_a_bad_configuration_is_told_whole_and_is_no_crash(tmp_path: Path) -> None:
    with Box(tmp_path) as box:
        config = tmp_path / "config.toml"
        config.write_text(config.read_text().replace('poll = "1s"', 'poll = "soon"\npol = 1'))
        box.launch()
        assert box.ended() == 78
        lines = box.log.read_text().splitlines()
        assert len(lines) == 2, lines
        assert re.search(r"config\.toml: inbound\.poll: ", lines[0] + lines[1])
        assert re.search(r"config\.toml: inbound\.pol\b.*poll", "\n".join(lines))


def test_a_second_daemon_on_the_same_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with _daemon(tmp_path) as (box, _):
        box.start()
        said = box.cli("run", status=2)
        assert len(said.splitlines()) == 1
        assert "another daemon works on" in said
        assert box.stop() == 0


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with _daemon(tmp_path) as (box, _):
        with box.database.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        said = box.cli("run", status=2)
        assert "newer than this mailbound" in said


# --- stopping ---------------------------------------------------------------------------------------------


def test_a_stop_waits_for_the_reply_to_a_final_dot(tmp_path: Path) -> None:
    addresses = {"slow": "slow@remote.test", **_people(200)}
    with _daemon(tmp_path, addresses, relay={"slow_seconds": 1.5}) as (box, relay):
        box.schedule("spring")
        box.start()
        box.wait(lambda: any("slow@" in to for _, to in relay.ledger()), "the slow recipient's mail")
        assert box.states("spring")["slow"] == "sending"
        assert box.stop() == 0
        states = box.states("spring")
        assert states["slow"] == "accepted"
        assert set(states.values()) <= {"accepted", "queued"}, "nothing is in doubt, nothing claimed"
        assert sum(state == "accepted" for state in states.values()) == len(relay.ledger())
        _check_tally(box)


def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    gate = Gate()
    with _daemon(tmp_path, more='[log]\nlevel = "info"') as (box, relay):
        config = tmp_path / "config.toml"
        config.write_text(config.read_text().replace('drain = "5s"', 'drain = "0s"'))
        relay.smtp.at(Point("server", _FINAL_REPLY), gate)
        box.schedule("spring", in_doubt="hold")
        box.start()
        box.wait(gate.reached, "what the gate holds back")
        assert box.stop() == 0
        gate.open()
        states = list(box.states("spring").values())
        assert 1 <= states.count("unknown") <= 4
        assert set(states) <= {"unknown", "accepted", "queued"}
        assert len(_events(box, "drain.exceeded")) == 1
        _check_tally(box)


# --- a relay that is down ---------------------------------------------------------------------------------


def test_a_run_waits_for_its_relay_and_costs_it_one_connection_a_step(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.2)
        with Box(tmp_path, outbound=f'port = {port}\ntls = "insecure"', connections=4) as box:
            box.populate(_people(40))
            box.schedule("spring")
            box.start()
            connections = 0
            while len(_events(box, "relay.failed")) < 3:
                with suppress(TimeoutError):
                    server.accept()[0].close()
                    connections += 1
            failed = _events(box, "relay.failed")
            # All of them may try at once at first; then it is one at a time, and one may not be told of yet.
            assert connections <= 4 + len(failed)
            assert all(event["retry_in"] >= least for event, least in zip(failed, (1, 2, 4), strict=False))
            assert set(box.counts("spring")) <= {"claimed", "queued"}
            assert box.run_state("spring") == "sending"
            server.close()
            with LedgerRelay(tmp_path / "ledger", port=port) as relay:
                box.wait(lambda: box.run_state("spring") == "sent", "the run to go on")
                assert box.counts("spring") == {"accepted": 40}
                assert len(relay.ledger()) == 40
                attempts = {row.attempt for row in box.rows(sa.select(tables.delivery.c.attempt))}
                assert attempts == {1}, "the relay's fault cost nobody an attempt"
                assert box.stop() == 0


# --- steering a run ---------------------------------------------------------------------------------------


def test_a_pause_sends_nothing_more_until_it_is_resumed(tmp_path: Path) -> None:
    gate = Gate()
    with _daemon(tmp_path, _people(20), connections=1) as (box, relay):
        relay.smtp.at(Point("server", _FINAL_REPLY, 7), gate)
        box.schedule("spring")
        box.start()
        box.wait(gate.reached, "what the gate holds back")
        box.cli("activity", "pause", "spring")
        gate.open()
        box.wait(lambda: box.counts("spring") == {"accepted": 7, "queued": 13}, "the claims to be given back")
        assert len(relay.ledger()) == 7
        assert box.run_state("spring") == "paused"
        box.cli("activity", "resume", "spring")
        box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
        assert len(set(relay.ledger())) == len(relay.ledger()) == 20
        assert {row.attempt for row in box.rows(sa.select(tables.delivery.c.attempt))} == {1}
        assert box.stop() == 0
        _check_tally(box)


def test_a_cancel_stops_before_the_next_final_dot(tmp_path: Path) -> None:
    gate = Gate()
    with _daemon(tmp_path, _people(20), connections=1) as (box, relay):
        relay.smtp.at(Point("server", _FINAL_REPLY, 3), gate)
        box.schedule("spring")
        box.start()
        box.wait(gate.reached, "what the gate holds back")
        box.cli("activity", "cancel", "spring")
        gate.open()
        box.wait(lambda: box.counts("spring") == {"accepted": 3, "cancelled": 17}, "the rest to be cancelled")
        assert len(relay.ledger()) == 3
        assert box.run_state("spring") == "cancelled"
        assert box.stop() == 0
        _check_tally(box)


def test_an_opt_out_counts_up_to_the_final_dot(tmp_path: Path) -> None:
    gate = Gate()
    with _daemon(tmp_path, _people(3), connections=1) as (box, relay):
        relay.smtp.at(Point("server", "354 ", 2), gate)
        box.schedule("spring")
        box.start()
        box.wait(gate.reached, "what the gate holds back")
        box.cli("recipient", "opt-out", "person-1", "--store", "main")
        gate.open()
        box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
        assert box.states("spring")["person-1"] == "skipped not-opted-in"
        assert [to for _, to in relay.ledger()] == ["person-0@remote.test", "person-2@remote.test"]
        assert box.stop() == 0
        _check_tally(box)


# --- when a run starts and ends ---------------------------------------------------------------------------


def test_a_missed_run_waits_for_an_operator_to_start_it(tmp_path: Path) -> None:
    with _daemon(tmp_path) as (box, relay):
        box.schedule("spring", starts_at=datetime.now(UTC) - timedelta(hours=2))
        box.start()
        box.wait(lambda: box.run_state("spring") == "missed", "the run to be missed")
        assert relay.ledger() == []
        box.cli("activity", "start", "spring")
        box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
        assert len(relay.ledger()) == 5
        assert box.stop() == 0


def test_a_run_outside_its_window_waits(tmp_path: Path) -> None:
    with _daemon(tmp_path) as (box, relay):
        far = (datetime.now(UTC) + timedelta(days=3)).strftime("%a").lower()
        box.schedule("later", window={"days": [far], "from": "09:00", "to": "17:00"})
        box.schedule("now")
        box.start()
        box.wait(lambda: box.run_state("now") == "sent", "the other run to be sent")
        box.wait(lambda: box.run_state("later") == "scheduled", "the run to wait")
        assert len(relay.ledger()) == 5
        assert box.stop() == 0


def test_a_recurring_activity_runs_and_plans_the_next_run(tmp_path: Path) -> None:
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    with _daemon(tmp_path) as (box, relay):
        box.schedule("news", starts_at=minute, cron=f"{minute.minute} * * * *")
        box.start()
        box.wait(lambda: [run.state for run in _runs(box)] == ["sent", "scheduled"], "the first run")
        assert [run.occurrence_at for run in _runs(box)] == [minute, minute + timedelta(hours=1)]
        assert len(relay.ledger()) == 5
        assert box.stop() == 0


def test_a_run_waits_for_the_one_before_it(tmp_path: Path) -> None:
    gate = Gate()
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    with _daemon(tmp_path) as (box, relay):
        relay.smtp.at(Point("server", _FINAL_REPLY, 5), gate)
        box.schedule("news", starts_at=minute - timedelta(minutes=1), cron="* * * * *")
        box.schedule("other")
        box.start()
        box.wait(gate.reached, "what the gate holds back")
        box.wait(lambda: len(_runs(box)) >= 3, "the runs to be planned")
        assert sum(run.state == "sending" for run in _runs(box) if run.activity_id == 1) <= 1
        gate.open()
        box.wait(lambda: sum(run.state == "sent" for run in _runs(box)) >= 3, "all to be sent, in turn")
        assert box.stop() == 0


def test_what_cannot_be_handed_over_in_time_expires(tmp_path: Path) -> None:
    addresses = {"anna": "anna@remote.test", "busy": "refuse+4.3.0@remote.test"}
    with _daemon(tmp_path, addresses) as (box, relay):
        box.schedule("spring", expires_after=timedelta(seconds=3))
        box.start()
        box.wait(lambda: box.run_state("spring") == "sent", "the run to end")
        assert box.states("spring") == {"anna": "accepted", "busy": "expired"}
        attempts = sa.select(tables.delivery.c.attempt).where(tables.delivery.c.state == "expired")
        assert box.rows(attempts)[0].attempt >= 1
        assert [to for _, to in relay.ledger()] == ["anna@remote.test"]
        assert box.stop() == 0
        _check_tally(box)

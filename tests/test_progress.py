"""What holds a run back, as `activity show` tells it; and windows that open by each recipient's own clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from box import Box
from ledger_relay import LedgerRelay
from mailbound.database import nodes, tables


def _held_back(box: Box) -> str | None:
    (run,) = box.json("activity", "show", "spring")["runs"]
    return run["held_back"]


def test_activity_show_says_which_limit_holds_now(tmp_path: Path) -> None:
    people = {f"p{number}": f"person-{number}@d{number}.example.com" for number in range(200)}
    with LedgerRelay(tmp_path / "ledger") as relay:
        settings = relay.settings
        settings["outbound"] += "\nrate = 5"
        with Box(tmp_path, **settings) as box:
            box.populate(people)
            box.schedule("spring")
            box.start()
            box.wait(lambda: box.run_state("spring") == "sending", "the run to begin")
            box.wait(lambda: _held_back(box) == "the rate of 5 a second", "the rate to be told")
            waiting = box.counts("spring")
            assert waiting["claimed"] <= 4 * 20, (
                "few for each connection; all others lie in the database alone"
            )
            assert waiting["queued"] >= len(people) // 2
            box.cli("activity", "pause", "spring")
            assert _held_back(box) == "a pause; `mailbound activity resume` goes on"
            assert "held back by: a pause" in box.cli("activity", "show", "spring")
            box.cli("activity", "resume", "spring")
            assert _about(box, "daemon")["state"] == "good"
            box.kill()
            _age(box, 2 * nodes.QUIET)
            assert re.fullmatch(
                r"its daemon, not heard of for 3\d s; its log may say why", str(_held_back(box))
            )
            assert _about(box, "daemon")["state"] == "warning"
            _age(box, nodes.LEASE)
            assert _held_back(box) == "its daemon: none is alive"
            assert _about(box, "daemon")["text"].startswith("none is at work; the last was heard of at 2")


def _age(box: Box, span: timedelta) -> None:
    """Let a daemon have been silent for longer."""
    with box.database.begin() as connection:
        seen_at = connection.execute(sa.select(tables.node.c.seen_at)).scalar_one()
        connection.execute(tables.node.update().values(seen_at=seen_at - span))


def _about(box: Box, what: str) -> dict[str, str]:
    return next(finding for finding in box.json("doctor") if finding["about"] == what)


def test_those_whose_clock_is_outside_the_window_wait_until_it_opens_there(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    zones = {"near": "UTC", "far": "Pacific/Kiritimati", "nowhere": ""}  # the far one is 14 hours ahead
    hours = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    with LedgerRelay(tmp_path / "ledger") as relay, Box(tmp_path, **relay.settings) as box:
        box.populate({name: f"{name}@example.com" for name in zones})
        with box.database.begin() as connection:
            for name, zone in zones.items():
                whose = tables.recipient.c.external_id == name
                connection.execute(tables.recipient.update().where(whose).values(time_zone=zone))
        box.start()
        box.plan("spring", "--window", hours, "--recipient-time")
        assert "or each recipient's own zone" in box.cli("activity", "show", "spring")
        box.wait(lambda: len(relay.ledger()) == 2, "those nearby to get it")
        due = sa.select(tables.delivery.c.next_attempt_at, tables.delivery.c.attempt)
        waiting = due.where(tables.delivery.c.state == "queued")
        box.wait(
            lambda: box.counts("spring") == {"accepted": 2, "queued": 1}, "the one far away to be given back"
        )
        (row,) = box.rows(waiting)
        opens = (now - timedelta(hours=1)).replace(second=0, microsecond=0) + timedelta(hours=10)
        assert row.next_attempt_at == opens, "24 hours less 14 after it opened here"
        assert row.attempt == 0
        assert box.run_state("spring") == "sending"
        assert (_held_back(box) or "").startswith("its deliveries, of which none is due before")
        assert box.stop() == 0

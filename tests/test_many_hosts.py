"""Several daemons on one PostgreSQL: any may die, be suspended or be cut off, and the rest go on."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from box import Box
from hosts import Host, hosts
from ledger_relay import LedgerRelay
from mailbound.database import tables, tally

_DATABASE, _RELAY = "127.0.0.2", "127.0.0.3"
_CONNECTIONS = 2
_RATE = 40.0
_CROWDED, _CROWDED_RATE = "crowded.remote.test", 4.0
_PEOPLE = {
    **{f"crowd-{number}": f"crowd-{number}@{_CROWDED}" for number in range(14)},
    **{f"person-{number}": f"person-{number}@d{number % 50}.remote.test" for number in range(386)},
}
_MAILS = 12
_WELL = 240  # messages that are sent before anything goes wrong


class Fleet:
    """Daemons that share a database and a relay, and a desk without a daemon from which to look on."""

    def __init__(self, desk: Box, boxes: list[Box], relay: LedgerRelay) -> None:
        self.desk, self.boxes, self.relay = desk, boxes, relay

    def begin(self, prefixes: list[list[str]]) -> None:
        """Start all daemons, one after another, and let the run be due once each knows of all."""
        for number, (box, prefix) in enumerate(zip(self.boxes, prefixes, strict=True)):
            box.start(prefix=prefix)
            if number == 0:
                self.desk.wait(lambda: bool(self.leases("scheduling")), "the first to take its leases")
        self.desk.schedule("spring")

    def node(self, box: Box) -> int:
        """Return the node that a daemon last became."""
        said = [event for event in box.events() if event["event"] in {"service.started", "node.rejoined"}]
        return int(said[-1]["node"])

    def age(self, node_id: int, column: str) -> None:
        """Let an hour pass for a node, by the database's clock."""
        with self.desk.database.begin() as connection:
            earlier = tables.node.c[column] - sa.text("interval '1 hour'")
            connection.execute(
                tables.node.update().where(tables.node.c.id == node_id).values({column: earlier})
            )

    def bury(self, box: Box) -> None:
        """Let the others find out that a daemon is silent, and wait until its dots must be answered."""
        node_id = self.node(box)
        there = sa.select(tables.node.c.lost_at).where(tables.node.c.id == node_id)
        self.age(node_id, "seen_at")
        self.desk.wait(lambda: self.desk.rows(there)[0].lost_at is not None, "it to be given up")
        self.age(node_id, "lost_at")
        # A transaction that was cut off holds its rows until the server ends it, half a minute later.
        self.desk.wait(lambda: not self.desk.rows(there), "what it had marked to be taken over", seconds=150)

    def leases(self, work: str) -> list[int]:
        """Return the nodes that took a lease, the earliest first."""
        return [event["node"] for event in self.events("lease.taken") if event["work"] == work]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what all daemons logged by that name."""
        started = (box for box in self.boxes if box.log.exists())
        found = [event for box in started for event in box.events() if event["event"] == name]
        return sorted(found, key=lambda event: event["timestamp"])

    def times(self) -> Counter[str]:
        """Return how often the relay took a message for each address."""
        return Counter(address for _, address in self.relay.ledger())

    def until_sent(self, count: int) -> None:
        self.desk.wait(lambda: len(self.relay.ledger()) >= count, f"{count} messages")

    def until_done(self) -> None:
        self.desk.wait(lambda: self.desk.run_state("spring") == "sent", "the run to be sent", seconds=90)

    def check(self, *, doubled: int) -> None:
        """Hold the database to the ledger."""
        times = self.times()
        assert set(times) == set(_PEOPLE.values()), "nobody is forgotten"
        assert sum(times.values()) - len(times) <= doubled
        assert self.desk.counts("spring") == {"accepted": len(_PEOPLE)}
        assert len(set(self.relay.ledger())) == len(times), "who is written to twice gets one Message-ID"
        assert len(self.events("run.started")) == len(self.events("run.finished")) == 1
        with self.desk.database.look() as connection:
            assert tally.differences(connection) == []


@contextmanager
def _fleet(folder: Path, url: str, count: int) -> Iterator[Fleet]:
    with ExitStack() as stack:
        relay = stack.enter_context(LedgerRelay(folder / "ledger"))
        settings = relay.settings
        settings["outbound"] += f"\nrate = {_RATE}"
        settings["sending"] = f'domain_rates = {{ "{_CROWDED}" = {_CROWDED_RATE} }}'
        names = ["desk", *(f"host-{number}" for number in range(count))]
        for name in names:
            (folder / name).mkdir()
        desk, *boxes = (
            stack.enter_context(Box(folder / name, url=url, connections=_CONNECTIONS, **settings))
            for name in names
        )
        desk.log.touch()
        desk.populate(_PEOPLE)
        yield Fleet(desk, boxes, relay)


def _place(host: Host, box: Box) -> None:
    """Let the daemon of a box find its services where its host has them."""
    config = box.folder / "config.toml"
    text = config.read_text().replace("@127.0.0.1:", f"@{_DATABASE}:")
    config.write_text(text.replace('host = "localhost"\nehlo_name', f'host = "{_RELAY}"\nehlo_name'))
    assert _DATABASE in config.read_text()
    assert _RELAY in config.read_text()


@pytest.mark.timeout(300)
def test_one_dies_one_loses_the_database_one_the_relay_and_everybody_gets_it(
    tmp_path: Path, postgres_url: str
) -> None:
    with hosts(4) as (places, lines), _fleet(tmp_path, postgres_url, 4) as fleet:
        database_port = sa.make_url(postgres_url).port
        assert database_port is not None
        for host, box in zip(places, fleet.boxes, strict=True):
            lines.lay(host, _DATABASE, database_port)
            lines.lay(host, _RELAY, fleet.relay.smtp.port)
            lines.lay(host, "127.0.0.1", fleet.relay.pop3.port)
            _place(host, box)
        for number in range(_MAILS):
            fleet.relay.simulator.maildrop.put(b"Subject: hello %d\r\n\r\nHello\r\n" % number)
        fleet.begin([host.prefix for host in places])
        dead, dumb, stranded, well = fleet.boxes
        fleet.until_sent(_WELL)
        _check_rate(fleet, _RATE, burst_seconds=0.1)
        dead.kill()
        places[1].cut(_DATABASE)
        places[2].cut(_RELAY)
        fleet.bury(dead)
        fleet.bury(dumb)
        fleet.until_sent(_WELL + 40)
        places[2].mend(_RELAY)
        fleet.until_done()
        _check_rate(fleet, _CROWDED_RATE, burst_seconds=1.0, domain=_CROWDED)
        places[1].mend(_DATABASE)
        dumb.wait(
            lambda: any(event["event"] == "node.rejoined" for event in dumb.events()), "it to join again"
        )
        # Each that was lost had at most one marked delivery a connection; so had the one whose relay went away.
        fleet.check(doubled=3 * _CONNECTIONS)
        first, *rest = fleet.leases("scheduling")
        assert first == fleet.node(dead)
        assert len(rest) == 1
        mails = fleet.desk.rows(sa.select(tables.inbound_mail.c.state))
        assert [row.state for row in mails] == ["read"] * _MAILS
        assert len(fleet.events("mail.read")) == _MAILS, "each was read by one"
        assert sum(event["mails"] for event in fleet.events("mail.fetched")) == _MAILS
        assert [box.stop() for box in (dumb, stranded, well)] == [0, 0, 0]
        assert fleet.desk.rows(sa.select(tables.node.c.id).where(tables.node.c.lost_at.is_(None))) == []


def _check_rate(fleet: Fleet, rate: float, *, burst_seconds: float, domain: str = "%") -> None:
    """See that all nodes together kept to a rate, in any span of time."""
    query = (
        sa.select(tables.delivery.c.marked_at)
        .join(tables.domain, tables.domain.c.id == tables.delivery.c.domain_id)
        .where(tables.delivery.c.marked_at.is_not(None), tables.domain.c.name.like(domain))
        .order_by(tables.delivery.c.marked_at)
    )
    marks = [row.marked_at for row in fleet.desk.rows(query)]
    assert len(marks) > rate, "long enough for a burst to be none"
    bursts = len(fleet.boxes) * max(1.0, rate / len(fleet.boxes) * burst_seconds)
    for first, earlier in enumerate(marks):
        for last, later in enumerate(marks[first:], first):
            # A mark comes some time after its token, the first one longest: it has to connect.
            assert last - first <= bursts + rate * ((later - earlier).total_seconds() + 0.5)


@pytest.mark.timeout(300)
def test_who_is_suspended_past_its_lease_wakes_to_do_no_harm(tmp_path: Path, postgres_url: str) -> None:
    with _fleet(tmp_path, postgres_url, 2) as fleet:
        fleet.begin([[], []])
        asleep, awake = fleet.boxes
        fleet.until_sent(40)
        asleep.signal(signal.SIGSTOP)
        fleet.bury(asleep)
        fleet.until_done()
        assert fleet.leases("scheduling")[-1] == fleet.node(awake)
        before = len(fleet.relay.ledger())
        asleep.signal(signal.SIGCONT)
        asleep.wait(
            lambda: any(event["event"] == "node.rejoined" for event in asleep.events()), "it to join again"
        )
        assert len(fleet.relay.ledger()) <= before + _CONNECTIONS, "what was marked as sleep fell upon it"
        fleet.check(doubled=_CONNECTIONS)
        assert [box.stop() for box in fleet.boxes] == [0, 0]

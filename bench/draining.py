"""A mailbox full of bounces, drained by the real daemon: fetched, read, classified, correlated, decided, committed.

    python bench/draining.py --mails 10000 [--sending] [--profile build/drain.svg]

Every bounce is about another delivery, and each must have its effect exactly once. The rate counts from the daemon's
start to the last bounce recorded. With --sending everybody who is left is sent another message meanwhile.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import sqlalchemy as sa

import backlog
import figures
import measures
import profiling
import stage
from figures import Figure, Scale
from mailbound.database import tables, tally, token_keys
from relays import Sink
from servers.mailnet import MailNet
from stage import Stage

_USER = "bounces@sender.test"
_TIMES = 5
"""So many times the usual messages: a hundred thousand."""

_SENT = """
INSERT INTO delivery (run_id, recipient_id, address_id, domain_id, state, attempt, reply, marked_at, settled_at)
SELECT 1, r.id, r.address_id, a.domain_id, 'accepted', 1, '250 2.0.0 Ok: queued', :now, :now
FROM recipient r JOIN address a ON a.id = r.address_id ORDER BY r.id
"""
_COUNTED = """
INSERT INTO tally (run_id, domain_id, outcome, day, node_id, count)
SELECT run_id, domain_id, state, :day, 1, count(*) FROM delivery GROUP BY run_id, domain_id
"""


@dataclass(frozen=True)
class Drained:
    """What one round brought."""

    rate: float  # bounces a second
    cpu_ms: float  # for each, of the daemon and its reader, since it was up
    peak_mib: float  # of the daemon's process
    early_mib: float  # the same when a tenth was done
    reader_mib: float  # the most of one reader
    sent_rate: float = 0.0  # messages a second that were sent meanwhile, if there were any to send


def drain(mails: int, *, sending: bool = False, profile: Path | None = None) -> Drained:
    """Let a daemon drain a mailbox. Raises AssertionError if an effect is missing, or there twice."""
    with MailNet() as net, stage.folder() as folder, Sink(folder) as sink:
        inbound = f'port = {net.ports["pop3"]}\ntls = "insecure"'
        more = '[web]\nunsubscribe_url = "https://news.sender.test/u/"\n[guard]\ncount = 1000000000\n'
        with Stage(folder, port=sink.port, inbound=inbound, more=more, connections=10) as here:
            here.crowd(mails)
            _send_all(here)
            with here.database.begin() as connection:
                key = token_keys.signing(connection, now=datetime.now(UTC))
            backlog.fill(net.maildir(_USER), backlog.reports_about(mails, key=key, day=backlog.today()))
            if sending:
                here.mail("again")
            drained = _drain(here, sink, mails, profile)
            here.stop()
            _check(here, mails)
            assert net.mails(_USER) == []
            return drained


def measure(scale: Scale) -> Iterator[Figure]:
    """Return how fast a large mailbox is drained, and what it takes."""
    seen = [drain(scale.messages * _TIMES)]
    beside = {"mails": scale.messages * _TIMES} | {
        name: figures.rounded(value) for name, value in asdict(seen[0]).items()
    }
    yield Figure("draining a mailbox", [each.rate for each in seen], 4000, "/s", beside=beside)
    name = "draining a mailbox: peak memory of the daemon"
    yield Figure(name, [each.peak_mib for each in seen], 150, "MiB", at_most=True)


def _drain(here: Stage, sink: Sink, mails: int, profile: Path | None) -> Drained:
    begun = time.monotonic()
    here.start()
    started = here.cpu_seconds()
    watching = profiling.watch(here.pid, profile)
    measures.wait(lambda: _read(here) >= mails // 10, "the first tenth", every=0.1)
    early = measures.peak_mib(here.pid)
    measures.wait(lambda: _read(here) >= mails, "all bounces", every=0.1)
    seconds = time.monotonic() - begun
    profiling.end(watching)
    cpu = here.cpu_seconds() - started
    sent = sink.count
    readers = [measures.peak_mib(child) for child in measures.children(here.pid)]
    return Drained(
        rate=mails / seconds,
        cpu_ms=cpu / mails * 1e3,
        peak_mib=measures.peak_mib(here.pid),
        early_mib=early,
        reader_mib=max(readers, default=0.0),
        sent_rate=sent / seconds,
    )


def _send_all(here: Stage) -> None:
    """Let everybody have got a message of a run, just now."""
    now = datetime.now(UTC)
    here.schedule("past")
    with here.database.begin() as connection:
        connection.execute(tables.activity.update().values(planned_through=now, ended_at=now))
        key = token_keys.signing(connection, now=now)
        moments = dict.fromkeys(("occurrence_at", "started_at", "frozen_at", "finished_at"), now)
        values = {"id": 1, "activity_id": 1, "state": "sent", "key_id": key.id, "day": backlog.today()}
        connection.execute(tables.run.insert().values(values | moments))
        moment = sa.bindparam("now", type_=tables.delivery.c.marked_at.type)
        connection.execute(sa.text(_SENT).bindparams(moment), {"now": now})
        connection.execute(sa.text(_COUNTED), {"day": backlog.today()})
        connection.execute(sa.text("ANALYZE"))


def _read(here: Stage) -> int:
    """Return how many mails were read; they come in order."""
    first_unread = sa.select(sa.func.min(tables.inbound_mail.c.id)).where(
        tables.inbound_mail.c.state == "new"
    )
    last = sa.select(sa.func.max(tables.inbound_mail.c.id))
    [(unread,)], [(kept,)] = here.rows(first_unread), here.rows(last)
    return int(unread - 1 if unread is not None else kept or 0)


def _check(here: Stage, mails: int) -> None:
    """Raise AssertionError unless each bounce was recorded once, and with all that follows from it."""
    bounce, change = tables.bounce, tables.change
    [(bounces, deliveries, signed)] = here.rows(
        sa.select(
            sa.func.count(),
            sa.func.count(bounce.c.delivery_id.distinct()),
            sa.func.sum(sa.case((bounce.c.evidence == "signed", 1), else_=0)),
        )
    )
    assert (bounces, deliveries, signed) == (mails, mails, mails), (bounces, deliveries, signed)
    [(bounced,)] = here.rows(sa.select(sa.func.count()).where(tables.delivery.c.state == "bounced"))
    assert bounced == mails, f"{bounced} deliveries of {mails} have bounced"
    [(applied,)] = here.rows(sa.select(sa.func.count()).where(bounce.c.disposition == "applied"))
    [(dead,)] = here.rows(
        sa.select(sa.func.count()).where(tables.recipient_status.c.status == "undeliverable")
    )
    [(out,)] = here.rows(sa.select(sa.func.count()).where(tables.opt_in.c.source == "hard_bounce"))
    changes = dict(map(tuple, here.rows(sa.select(change.c.kind, sa.func.count()).group_by(change.c.kind))))
    assert applied == dead == out > 0, (applied, dead, out)
    assert changes == {"status": applied, "opt_in": applied}, changes
    with here.database.look() as connection:
        assert tally.differences(connection) == []


def main() -> None:
    """Measure what the command line asks for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so take the daemon along
    parser = argparse.ArgumentParser(description="How fast the daemon drains a mailbox full of bounces.")
    parser.add_argument("--mails", type=int, default=10_000)
    parser.add_argument("--sending", action="store_true", help="send to everybody meanwhile")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="a flame graph (.svg) or speedscope file"
    )
    asked = parser.parse_args()
    drained = drain(asked.mails, sending=asked.sending, profile=asked.profile)
    print(json.dumps({name: figures.rounded(value) for name, value in asdict(drained).items()}))


if __name__ == "__main__":
    main()

"""A database full of people, a letter for them, and a daemon beside it: where the measurements happen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

import measures
import syncs
from box import Box
from mailbound.database import segments, stores, tables
from servers.postgres import Postgres

LETTER = Path(__file__).parent / "letter"
"""A template of 7.5 kB HTML and 1.8 kB text with six fields and an `if`: a message of 10 kB."""

_NUMBERS = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :people)"
_NAME = "CASE WHEN n % 4 = 0 THEN 'Zoë Müller ' ELSE 'Anna Carter ' END || n"
_ATTRIBUTES = """'{"city": "City ' || (n % 500) || '", "points": ' || (n % 5000) || ', "gold": ' ||
    CASE WHEN n % 3 = 0 THEN 'true' ELSE 'false' END || ', "since": "20' || (10 + n % 16) ||
    '-03-21", "until": "31 May", "voucher": "SPRING-' || n || '"}'"""
_PEOPLE = {
    "domain": f"""INSERT INTO domain (id, name) {_NUMBERS.replace(":people", "100")}
        SELECT n, 'domain' || n || '.test' FROM number""",
    "address": f"""INSERT INTO address (id, key, domain_id) {_NUMBERS}
        SELECT n, 'person' || n || '@domain' || (1 + n % 100) || '.test', 1 + n % 100 FROM number""",
    "recipient": f"""INSERT INTO recipient (id, external_id, address_id, address, name, attributes, created_at,
            changed_at) {_NUMBERS}
        SELECT n, 'c' || n, n, 'person' || n || '@domain' || (1 + n % 100) || '.test', {_NAME},
            CAST({_ATTRIBUTES} AS JSON_HERE), :now, :now FROM number""",
    "opt_in": f"""INSERT INTO opt_in (recipient_id, store_id, receive, source, changed_at) {_NUMBERS}
        SELECT n, :store, :yes, 'user', :now FROM number""",
}


class Stage(Box):
    """A box whose activities go to everybody, with the letter."""

    def __init__(self, folder: Path, *, port: int, sync_delay_ms: float = 0.0, **settings: Any) -> None:
        """Send to a relay at `port` in the clear, unless `outbound` says how to reach it.

        On SQLite each sync of the daemon takes `sync_delay_ms` longer.
        """
        settings.setdefault("outbound", f'port = {port}\ntls = "insecure"')
        # Nobody writes back: the mailbox is looked at when the daemon starts, and found closed.
        settings.setdefault("inbound", 'port = 9\ntls = "insecure"')
        settings.setdefault("more", '[web]\nunsubscribe_url = "https://news.sender.test/u/"')
        super().__init__(folder, **settings)
        shutil.copytree(LETTER, folder / "templates" / "letter", dirs_exist_ok=True)
        if self.url.startswith("sqlite"):
            self.environment |= syncs.environment(folder, delay_ms=sync_delay_ms)

    @property
    def pid(self) -> int:
        """Return the process id of the daemon."""
        assert self.process is not None
        return self.process.pid

    def cpu_seconds(self) -> float:
        """Return the processor time that the daemon has used, its reader of mails included."""
        return measures.family_cpu_seconds(self.pid)

    def syncs(self) -> int:
        """Return how often the database was synced so far."""
        if self.url.startswith("sqlite"):
            return syncs.count(self.folder)
        with self.database.look() as connection:
            return int(connection.execute(sa.text("SELECT wal_sync FROM pg_stat_wal")).scalar_one())

    def crowd(self, people: int) -> None:
        """Make the database, with so many recipients who want mail of the store."""
        self.cli("database", "upgrade")
        now = datetime.now(UTC)
        json_here = "TEXT" if self.database.is_sqlite else "JSONB"
        moment = sa.bindparam("now", type_=tables.recipient.c.created_at.type)
        with self.database.begin() as connection:
            values = {
                "people": people,
                "store": stores.keep(connection, ["main"])["main"],
                "now": now,
                "yes": True,
            }
            for table, statement in _PEOPLE.items():
                query = sa.text(statement.replace("JSON_HERE", json_here))
                needed = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(query.bindparams(moment) if "now" in needed else query, needed)
                if not self.database.is_sqlite and table != "opt_in":
                    connection.execute(
                        sa.text(
                            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
                        )
                    )
            segments.create(connection, "all", "external_id <> ''", now=now)
            connection.execute(sa.text("ANALYZE"))

    def mail(self, activity: str, *, at: str = "now") -> None:
        """Create an activity that sends the letter to everybody."""
        self.cli("activity", "create", activity, "--segment", "all", "--template", "letter", "--at", at)

    def await_sent(self, activity: str) -> None:
        """Return when the activity's run is over."""

        def over() -> bool:
            return self.run_state(activity) not in {"", "scheduled", "sending"}

        self.wait(over, "the run to end", seconds=measures.PATIENCE_SECONDS)

    def accepted(self) -> tuple[int, float]:
        """Return how many deliveries were accepted, and in how many seconds from the first to the last."""
        delivery = tables.delivery
        when = sa.func.min(delivery.c.settled_at), sa.func.max(delivery.c.settled_at)
        [(count, first, last)] = self.rows(
            sa.select(sa.func.count(), *when).where(delivery.c.state == "accepted")
        )
        return count, (last - first).total_seconds() if count else 0.0


def domain_of(number: int) -> str:
    """Return the domain of a recipient by its number."""
    return f"domain{1 + number % 100}.test"


@contextmanager
def folder() -> Iterator[Path]:
    """Give an empty folder, on the disk that holds the temporary files."""
    with TemporaryDirectory(prefix="mailbound-bench-") as name:
        yield Path(name)


@contextmanager
def database(kind: str, where: Path) -> Iterator[str]:
    """Give the URL of an empty database, `sqlite` or `postgresql`, that keeps what it has promised."""
    if kind == "sqlite":
        yield f"sqlite:///{where}/mailbound.db"
    else:
        with Postgres(**DURABLE) as server, server.database() as url:
            yield url


DURABLE: Mapping[str, str] = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}

"""A database with people in it, and what the tests of recipients, imports and segments ask of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mailbound.cli import importing
from mailbound.database import changes, recipients, schema, stores
from mailbound.database.engine import Database
from mailbound.database.tables import change, opt_in, recipient
from mailbound.model import RecipientStatus, Source

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class People:
    """A database with the stores `main` and `outlet`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        schema.upgrade(database)
        with database.begin() as connection:
            self.stores = stores.keep(connection, ["main", "outlet"])

    def bring(self, text: str | bytes, folder: Path, **options: Any) -> importing.Summary:
        """Import a file of that content; its name is `people.csv`, its store `main` if it has an opt-in."""
        content = text.encode() if isinstance(text, str) else text
        form = options.pop("form", "csv")
        options.setdefault("store", "main" if b"opt_in" in content else None)
        return importing.import_file(
            self.database,
            importing.File(str(folder / "people.csv"), io.BytesIO(content), form),
            **{"mapped": (), "as_text": (), "who": "alice", "now": NOW} | options,
        )

    def find(self, who: str) -> Any:
        with self.database.look() as connection:
            return recipients.find(connection, who)

    def names(self) -> list[str]:
        with self.database.look() as connection:
            return list(
                connection.execute(sa.select(recipient.c.external_id).order_by(recipient.c.id)).scalars()
            )

    def wishes(self, who: str) -> dict[str, tuple[bool, str, datetime]]:
        """Return what somebody wants, by the store."""
        with self.database.look() as connection:
            rows = recipients.wishes(connection, recipients.find(connection, who).id)
        return {row.store: (row.receive, row.source, row.changed_at) for row in rows}

    def status(self, who: str) -> RecipientStatus:
        with self.database.look() as connection:
            return recipients.status(connection, recipients.find(connection, who).address_id).status

    def ledger(self, kind: str) -> list[tuple[str, str, str, str]]:
        """Return before, after, cause and who of each line."""
        with self.database.look() as connection:
            query = sa.select(change.c.before, change.c.after, change.c.cause, change.c.who)
            return [
                tuple(row)
                for row in connection.execute(query.where(change.c.kind == kind).order_by(change.c.id))
            ]

    def everything(self) -> dict[str, list[Any]]:
        """Return all rows that an import could write."""
        with self.database.look() as connection:
            return {
                table.name: [
                    tuple(row)
                    for row in connection.execute(sa.select(table).order_by(table.c[0], table.c[1]))
                ]
                for table in (recipient, opt_in, change)
            }

    def wish(
        self, who: str, *, receive: bool, source: Source, now: datetime = NOW, store: str = "main"
    ) -> None:
        with self.database.begin() as connection:
            changes.set_opt_in(
                connection,
                recipient_id=recipients.find(connection, who).id,
                store_id=self.stores[store],
                receive=receive,
                source=source,
                cause=changes.Cause("bounce"),
                now=now,
            )

    def die(self, who: str, *, now: datetime = NOW) -> None:
        """Let the address be found undeliverable, with what the policy does then."""
        with self.database.begin() as connection:
            changes.set_status(
                connection,
                address_id=recipients.find(connection, who).address_id,
                status=RecipientStatus.UNDELIVERABLE,
                category="no-such-user",
                cause=changes.Cause("bounce"),
                now=now,
            )
        self.wish(who, receive=False, source=Source.HARD_BOUNCE, now=now)


@contextlib.contextmanager
def people(url: str) -> Iterator[People]:
    """Give an empty database with two stores."""
    database = Database(url)
    try:
        yield People(database)
    finally:
        database.close()

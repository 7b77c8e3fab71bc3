"""A small world for database tests: stores, people, a segment, an activity and a run, made in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mailbound import address as addresses
from mailbound import tokens
from mailbound.config import Policy as Limits
from mailbound.database import (
    activities,
    audience,
    changes,
    claims,
    deliveries,
    dots,
    nodes,
    outcomes,
    runs,
    schema,
    segments,
    stores,
    tables,
)
from mailbound.database.activities import Activity, Plan
from mailbound.database.changes import Cause
from mailbound.database.claims import Claimed
from mailbound.database.deliveries import Settlement
from mailbound.database.engine import Database
from mailbound.database.outcomes import Ended
from mailbound.lifecycle import DeliveryEvent, DeliveryState
from mailbound.model import Source

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
NODE = 1
COMMAND = Cause("command", who="test")


class World:
    """One open transaction and what was made in it."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.stores = stores.keep(connection, ["main", "other"])
        nodes.join(connection, "test", now=NOW)  # alive by the database's clock, whatever day it is

    def person(
        self, name: str, *, address: str | None = None, opted_in: bool | None = True, **attributes: Any
    ) -> int:
        """Return the id of a new recipient; `opted_in` None leaves no row."""
        known = addresses.normalise(address or f"{name}@example.org")
        domain_id = self._get_or_make(tables.domain, {"name": known.domain})
        address_id = self._get_or_make(tables.address, {"key": known.key}, {"domain_id": domain_id})
        row = {
            "external_id": name,
            "address_id": address_id,
            "address": known.given,
            "name": name.title(),
            "attributes": attributes,
            "created_at": NOW,
            "changed_at": NOW,
        }
        recipient_id = self._get_or_make(tables.recipient, row)
        if opted_in is not None:
            self.wish(recipient_id, receive=opted_in)
        return recipient_id

    def wish(
        self, recipient_id: int, *, store: str = "main", receive: bool, source: Source = Source.IMPORT
    ) -> None:
        """Set an opt-in."""
        changes.set_opt_in(
            self.connection,
            recipient_id=recipient_id,
            store_id=self.stores[store],
            receive=receive,
            source=source,
            cause=COMMAND,
            now=NOW,
        )

    def activity(self, name: str = "spring", **plan: Any) -> Activity:
        """Return a new activity for everybody."""
        if not self.connection.execute(sa.select(tables.segment.c.id)).first():
            self.connection.execute(
                tables.segment.insert().values(name="all", condition="external_id <> ''", created_at=NOW)
            )
        defaults: Mapping[str, Any] = {
            "name": name,
            "store": "main",
            "segment": "all",
            "template": "spring",
            "time_zone": "UTC",
            "grace": timedelta(hours=1),
            "expires_after": timedelta(days=4),
            "in_doubt": "resend",
            "starts_at": NOW,
        }
        return activities.create(self.connection, Plan(**{**defaults, **plan}), now=NOW)

    def sending(
        self, activity: Activity | None = None, *, at: datetime = NOW, chunk: int = audience.CHUNK
    ) -> int:
        """Return the id of a run that has begun, its audience frozen."""
        activity = activity or self.activity()
        runs.schedule(self.connection, activity.id, at)
        run = runs.of_activity(self.connection, activity.id)[0]
        runs.start(
            self.connection,
            run.id,
            frozen_template=b"",
            template_name="spring",
            key_id=0,
            day=tokens.day_number(at),
            expires_at=at + activity.expires_after,
            now=at,
        )
        self.freeze(run.id, at=at, chunk=chunk)
        return run.id

    def freeze(self, run_id: int, *, chunk: int = audience.CHUNK, at: datetime = NOW) -> None:
        """Freeze the whole audience of a run."""
        run = runs.find(self.connection, run_id)
        members = segments.members_of(
            self.connection, activities.find(self.connection, run.activity_id).segment_id
        )
        while not audience.freeze(
            self.connection,
            run_id=run_id,
            store_id=run.store_id,
            members=members,
            node_id=NODE,
            now=at,
            chunk=chunk,
        ).done:
            continue

    def claim(self, run_id: int, *, limit: int = 1000, at: datetime = NOW) -> list[Claimed]:
        """Claim what is due."""
        store_id = runs.find(self.connection, run_id).store_id
        return claims.claim(
            self.connection, run_id=run_id, store_id=store_id, node_id=NODE, limit=limit, now=at
        )

    def send(self, run_id: int, *, limit: int = 1000, at: datetime = NOW) -> dict[str, int]:
        """Claim, mark and accept what is due; return the delivery ids by external id."""
        claimed = self.claim(run_id, limit=limit, at=at)
        marked = mark(self.connection, [each.id for each in claimed], node_id=NODE, now=at)
        accepted = [Settlement(each, DeliveryEvent.ACCEPT, reply="250 2.0.0 Ok") for each in sorted(marked)]
        deliveries.settle(self.connection, accepted, node_id=NODE, now=at)
        return {each.external_id: each.id for each in claimed}

    def commit(self, *ended: Ended, marks: list[int] | None = None, at: datetime = NOW) -> outcomes.Committed:
        """Commit outcomes and marks together."""
        return outcomes.commit(
            self.connection,
            ended,
            marks or [],
            node_id=NODE,
            store_id=self.stores["main"],
            limits=Limits(),
            now=at,
        )

    def states(self, run_id: int) -> dict[str, str]:
        """Return the state of each delivery by external id, with the reason of a skipped one."""
        query = (
            sa.select(tables.recipient.c.external_id, tables.delivery.c.state, tables.delivery.c.reason)
            .join(tables.delivery, tables.delivery.c.recipient_id == tables.recipient.c.id)
            .where(tables.delivery.c.run_id == run_id)
        )
        return {
            name: f"skipped {reason}" if state == DeliveryState.SKIPPED else state
            for name, state, reason in self.connection.execute(query)
        }

    def _get_or_make(
        self, table: sa.Table, key: Mapping[str, Any], more: Mapping[str, Any] | None = None
    ) -> int:
        if table is not tables.recipient:
            matches = [table.c[name] == value for name, value in key.items()]
            known = self.connection.execute(sa.select(table.c.id).where(*matches)).scalar_one_or_none()
            if known is not None:
                return int(known)
        made = table.insert().values({**key, **(more or {})}).returning(table.c.id)
        return int(self.connection.execute(made).scalar_one())


def mark(connection: sa.Connection, ids: list[int], *, node_id: int, now: datetime) -> set[int]:
    """Mark deliveries `sending`, and return those whose final dot may go out once this is committed."""
    of = sa.select(tables.activity.c.store_id).select_from(
        tables.delivery.join(tables.run).join(tables.activity)
    )
    store_id = connection.execute(of.where(tables.delivery.c.id.in_(ids))).scalars().first() or 0
    return set(dots.write(connection, (), ids, node_id=node_id, store_id=store_id, now=now).marked)


@contextmanager
def world(url: str) -> Iterator[World]:
    """Give a world in a new database at `url`, within one transaction."""
    database = Database(url, checkpoints=True)
    try:
        schema.upgrade(database)
        with database.begin() as connection:
            yield World(connection)
    finally:
        database.close()

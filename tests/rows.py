"""Rows put straight into the tables, as the daemon leaves them, for the tests of the reports."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mailbound.database import stores
from mailbound.database import tally as tallies
from mailbound.database.tables import (
    activity,
    address,
    bounce,
    delivery,
    domain,
    inbound_mail,
    recipient,
    run,
    segment,
)
from mailbound.lifecycle import DeliveryState, RunState

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


class World:
    """Rows put straight into the tables; ids count from 1."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.stores = stores.keep(connection, ["main", "outlet"])
        self.people = itertools.count(1)
        self.mail = itertools.count(1)
        self.segment_id = self.insert(segment, name="all", condition="true", created_at=NOW)

    def insert(self, table: sa.Table, **values: Any) -> int:
        return self.connection.execute(table.insert().values(values).returning(table.c.id)).scalar_one()

    def activity(self, name: str, store: str = "main") -> int:
        return self.insert(
            activity,
            name=name,
            store_id=self.stores[store],
            segment_id=self.segment_id,
            template="hello",
            time_zone="UTC",
            grace_seconds=3600,
            expires_after_seconds=86400,
            in_doubt="resend",
            created_at=NOW,
            planned_through=NOW,
        )

    def run(self, activity_id: int, started_at: datetime = NOW, seconds: float | None = 10) -> int:
        return self.insert(
            run,
            activity_id=activity_id,
            occurrence_at=started_at,
            state=RunState.SENDING if seconds is None else RunState.SENT,
            started_at=started_at,
            finished_at=None if seconds is None else started_at + timedelta(seconds=seconds),
        )

    def domain(self, name: str) -> int:
        found = self.connection.execute(sa.select(domain.c.id).where(domain.c.name == name)).scalar()
        return found or self.insert(domain, name=name)

    def person(self, at: str = "example.com", local: str = "", **values: Any) -> sa.Row[Any]:
        number = next(self.people)
        key = f"{local or f'person{number}'}@{at}"
        address_id = self.connection.execute(sa.select(address.c.id).where(address.c.key == key)).scalar()
        if address_id is None:
            address_id = self.insert(address, key=key, domain_id=self.domain(at))
        row = {"external_id": f"c{number}", "address": key, "name": "", "attributes": {}, "created_at": NOW}
        recipient_id = self.insert(recipient, address_id=address_id, **row | {"changed_at": NOW} | values)
        return self.connection.execute(
            sa.select(recipient, address.c.domain_id).join(address).where(recipient.c.id == recipient_id)
        ).one()

    def deliver(
        self,
        run_id: int,
        state: DeliveryState,
        *,
        at: str = "example.com",
        day: datetime = NOW,
        **values: Any,
    ) -> sa.Row[Any]:
        """Put in a delivery, and count it as the daemon does."""
        person = values.pop("person", None) or self.person(at)
        delivery_id = self.insert(
            delivery,
            run_id=run_id,
            recipient_id=person.id,
            address_id=person.address_id,
            domain_id=person.domain_id,
            state=state,
            **values,
        )
        moves = tallies.Moves()
        moves.enter(run_id, person.domain_id, state)
        moves.write(self.connection, node_id=1, now=day)
        return self.connection.execute(sa.select(delivery).where(delivery.c.id == delivery_id)).one()

    def move(self, row: sa.Row[Any], after: DeliveryState, *, day: datetime) -> None:
        moves = tallies.Moves()
        moves.move(row.run_id, row.domain_id, DeliveryState(row.state), after)
        moves.write(self.connection, node_id=2, now=day)
        self.connection.execute(delivery.update().where(delivery.c.id == row.id).values(state=after))

    def say(
        self, row: sa.Row[Any] | None, kind: str = "bounce", *, by_mail: bool = True, **values: Any
    ) -> int:
        """Put in what was said about a delivery."""
        number = next(self.mail)
        mail_id = None
        if by_mail:
            mail_id = self.insert(
                inbound_mail,
                store_id=1,
                uid=f"{number}",
                sha256="0" * 64,
                size_octets=1,
                fetched_at=NOW,
                state="read",
            )
        about = (
            {name: getattr(row, name) for name in ("run_id", "recipient_id", "address_id", "domain_id")}
            | {"delivery_id": row.id}
            if row
            else {}
        )
        known: dict[str, Any] = {
            "at": NOW,
            "kind": kind,
            "mail_id": mail_id,
            "store_id": 1,
            "attempt": number,
            "address": "someone@example.com",
            "evidence": "signed" if by_mail else "direct",
            "action": {"delay": "delayed", "success": "delivered"}.get(kind, "failed"),
            "status_class": 5,
            "category": "no-such-user" if kind == "bounce" else "",
            "permanent": kind == "bounce",
            "disposition": "applied",
        }
        return self.insert(bounce, **known | about | values)

"""Suppression: an address or a whole domain that gets nothing, whatever its people wish, until an operator says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import address as addresses
from mailbound.database import changes
from mailbound.database.changes import Cause
from mailbound.database.tables import address, domain, suppression
from mailbound.errors import InputError

_WRITTEN = re.compile(r"(.*?)(?: \(until (\d{4}-\d\d-\d\dT[\d:.]+\+00:00)\))?", re.DOTALL)

_Place = dict[str, int]  # the column that names what is suppressed, and its value


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why something is suppressed, and until when; None is for good."""

    reason: str
    until: datetime | None = None

    def __str__(self) -> str:
        """Return it as the ledger writes it."""
        return f"{self.reason} (until {self.until.isoformat()})" if self.until else self.reason

    @classmethod
    def read(cls, line: str) -> Suppression | None:
        """Return what the ledger wrote, or None where there was no suppression."""
        found = _WRITTEN.fullmatch(line)
        if not line or found is None:
            return None
        return cls(found[1], datetime.fromisoformat(found[2]) if found[2] else None)


def suppress(connection: sa.Connection, what: str, why: Suppression, *, cause: Cause, now: datetime) -> bool:
    """Suppress an address or, without an @-sign, a domain; return whether anything changed.

    Neither need be known yet. Raises InputError if it can be neither.
    """
    return put(connection, _place(connection, what), why, cause=cause, now=now)


def unsuppress(connection: sa.Connection, what: str, *, cause: Cause, now: datetime) -> bool:
    """Let an address or a domain have mail again; return False if it was not suppressed. Raises InputError."""
    return put(connection, _place(connection, what), None, cause=cause, now=now)


def put(
    connection: sa.Connection, place: _Place, why: Suppression | None, *, cause: Cause, now: datetime
) -> bool:
    """Write a suppression, or its end, and the ledger; return whether it differs from before."""
    before = find(connection, place)
    if before == why:
        return False
    connection.execute(suppression.delete().where(*_is(place)))
    if why is not None:
        row = {**place, "reason": why.reason, "until": why.until, "created_at": now}
        connection.execute(suppression.insert().values(row))
    changes.record(
        connection,
        kind="suppression",
        before=str(before or ""),
        after=str(why or ""),
        cause=cause,
        now=now,
        address_id=place.get("address_id"),
        domain_id=place.get("domain_id"),
    )
    return True


def find(connection: sa.Connection, place: _Place) -> Suppression | None:
    """Return the suppression of an address or a domain, though its time may be over; None if there is none."""
    row = connection.execute(sa.select(suppression).where(*_is(place))).one_or_none()
    return Suppression(row.reason, row.until) if row else None


def restore(connection: sa.Connection, line: Any, *, cause: Cause, now: datetime) -> bool:
    """Take back a line of the ledger; return False if its value stands no longer, or is of an erased person."""
    place = {name: getattr(line, name) for name in ("address_id", "domain_id") if getattr(line, name)}
    if not place or str(find(connection, place) or "") != line.after:
        return False
    return put(connection, place, Suppression.read(line.before), cause=cause, now=now)


def everything(connection: sa.Connection) -> Sequence[Any]:
    """Return what is suppressed, the latest first: what, reason, until and created_at; erased people are left out."""
    what = sa.func.coalesce(address.c.key, domain.c.name).label("what")
    query = (
        sa.select(what, suppression.c.reason, suppression.c.until, suppression.c.created_at)
        .outerjoin(address, address.c.id == suppression.c.address_id)
        .outerjoin(domain, domain.c.id == suppression.c.domain_id)
        .where(suppression.c.address_hash.is_(None))
        .order_by(suppression.c.id.desc())
    )
    return connection.execute(query).all()


def of_address(connection: sa.Connection, address_id: int, *, now: datetime) -> Suppression | None:
    """Return the suppression of an address, or of its domain, that holds now; None if there is none."""
    its_domain = sa.select(address.c.domain_id).where(address.c.id == address_id).scalar_subquery()
    query = (
        sa.select(suppression)
        .where((suppression.c.address_id == address_id) | (suppression.c.domain_id == its_domain))
        .where(suppression.c.until.is_(None) | (suppression.c.until > now))
        .order_by(suppression.c.domain_id.is_not(None))
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return Suppression(row.reason, row.until) if row else None


def _known(what: str) -> addresses.Address:
    """Return an address, or for a domain one within it. Raises InputError for what is neither."""
    if "@" in what:
        return addresses.normalise(what)
    try:
        return addresses.normalise(f"postmaster@{what}")
    except InputError:
        raise InputError(f"{what!r} is neither an address nor a domain") from None


def _place(connection: sa.Connection, what: str) -> _Place:
    known = _known(what)
    domain_id = _id_of(connection, domain, {"name": known.domain})
    if "@" not in what:
        return {"domain_id": domain_id}
    return {"address_id": _id_of(connection, address, {"key": known.key}, domain_id=domain_id)}


def _id_of(connection: sa.Connection, table: sa.Table, key: dict[str, str], **more: int) -> int:
    insert = changes.upsert(connection, table).values({**key, **more}).on_conflict_do_nothing()
    connection.execute(insert)
    same = [table.c[name] == value for name, value in key.items()]
    return int(connection.execute(sa.select(table.c.id).where(*same)).scalar_one())


def _is(place: _Place) -> list[sa.ColumnElement[bool]]:
    return [suppression.c[name] == value for name, value in place.items()]

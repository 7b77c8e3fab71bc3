"""Imports: people by their external_id, a batch in a transaction, with few statements for many rows.

An import says what the host system knows, which is not always the last word on a wish:

    no row yet for the store                a row with the source `import`
    the row's source is `import`            the file decides
    consent newer than the row              the person's own new wish: source `user`; an undeliverable address
                                            gets its probation, if the consent is newer than that, too
    anything else                           stays as it is

A changed address gives back the wish that a `hard_bounce` took. Whatever is the same already is not written, so an
import that runs again changes nothing and leaves no trace in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.address import Address
from mailbound.database import changes, erasing
from mailbound.database.changes import Cause
from mailbound.database.tables import address, change, domain, opt_in, recipient, recipient_status
from mailbound.model import RecipientStatus, Source

BATCH = 1000
_MOST_DOMAINS = 100_000  # that are remembered between batches


@dataclass(frozen=True, slots=True)
class Person:
    """What a file says about one person. None: it does not say; an attribute that is None is taken away."""

    external_id: str
    address: Address
    name: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    receive: bool | None = None
    consent_at: datetime | None = None


@dataclass(slots=True)
class Counts:
    """What an import did, in people; the opt-ins that it changed are counted beside them."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    erased: int = 0  # they asked to be forgotten, so they are not brought back
    opted_in: int = 0
    opted_out: int = 0

    def add(self, other: Counts) -> None:
        """Add what another batch did."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class Wish:
    """A row of `opt_in`."""

    receive: bool
    source: Source
    changed_at: datetime

    def __str__(self) -> str:
        """Return it as the ledger writes it."""
        return f"{'in' if self.receive else 'out'} ({self.source})"


def wish(before: Wish | None, person: Person, *, now: datetime) -> Wish | None:
    """Return the wish that a file changes `before` into, or None if it stays as it is."""
    if person.receive is None:
        return None
    if before is None:
        return Wish(person.receive, Source.IMPORT, person.consent_at or now)
    if person.consent_at is not None and person.consent_at > before.changed_at:
        return Wish(person.receive, Source.USER, person.consent_at)
    if before.source is Source.IMPORT and before.receive is not person.receive:
        return Wish(person.receive, Source.IMPORT, now)
    return None


@dataclass(slots=True)
class _Row:
    """A person of the batch, with what is known of them."""

    person: Person
    known: Any | None
    id: int = 0
    address_id: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    touched: bool = False

    @property
    def moved(self) -> bool:
        return self.known is not None and self.known.key != self.person.address.key


class Import:
    """One import of one file; it remembers the domains that it has met."""

    def __init__(self, *, store_id: int, who: str, now: datetime) -> None:
        """Take whose opt-in the file speaks of, who imports it, and when."""
        self._store_id = store_id
        self._cause = Cause("import", who=who)
        self._now = now
        self._domains: dict[str, int] = {}

    def apply(self, connection: sa.Connection, people: Sequence[Person]) -> Counts:
        """Write up to `BATCH` people, each external_id once, and return what changed."""
        known = _known(connection, [person.external_id for person in people])
        rows = [_Row(person, known.get(person.external_id)) for person in people]
        kept = _without_erased(connection, rows)
        self._find_addresses(connection, kept)
        for row in kept:
            row.values = self._values(row)
            row.touched = _differs(row)
        self._write_people(connection, kept)
        counts = Counts(erased=len(rows) - len(kept))
        self._write_wishes(connection, kept, counts)
        counts.new = sum(row.known is None for row in kept)
        counts.changed = sum(row.known is not None and row.touched for row in kept)
        counts.unchanged = len(kept) - counts.new - counts.changed
        return counts

    def _find_addresses(self, connection: sa.Connection, rows: Sequence[_Row]) -> None:
        """Give every row the id of its address; the new ones are inserted."""
        wanted = {
            row.person.address.key: row.person.address for row in rows if row.known is None or row.moved
        }
        ids = _ids(connection, address.c.key, wanted)
        missing = sorted(
            wanted.keys() - ids.keys()
        )  # in one order, so that two imports cannot block each other
        if missing:
            self._find_domains(connection, {wanted[key].domain for key in missing})
            values = [{"key": key, "domain_id": self._domains[wanted[key].domain]} for key in missing]
            insert = changes.upsert(connection, address).on_conflict_do_nothing()
            connection.execute(insert, values)
            ids |= _ids(connection, address.c.key, missing)
        for row in rows:
            row.address_id = (
                ids[row.person.address.key] if row.known is None or row.moved else row.known.address_id
            )

    def _find_domains(self, connection: sa.Connection, names: set[str]) -> None:
        if len(self._domains) > _MOST_DOMAINS:
            self._domains.clear()
        unknown = sorted(names - self._domains.keys())
        if unknown:
            insert = changes.upsert(connection, domain).on_conflict_do_nothing()
            connection.execute(insert, [{"name": name} for name in unknown])
            self._domains |= _ids(connection, domain.c.name, unknown)

    def _values(self, row: _Row) -> dict[str, Any]:
        person, known = row.person, row.known
        if known is None:
            attributes = {name: value for name, value in person.attributes.items() if value is not None}
            name, locale, time_zone = person.name or "", person.locale or "", person.time_zone or ""
        else:
            merged = {**known.attributes, **person.attributes}
            attributes = {name: value for name, value in merged.items() if value is not None}
            name = known.name if person.name is None else person.name
            locale = known.locale if person.locale is None else person.locale
            time_zone = known.time_zone if person.time_zone is None else person.time_zone
        return {
            "address_id": row.address_id,
            "address": person.address.given,
            "name": name,
            "locale": locale,
            "time_zone": time_zone,
            "attributes": attributes,
        }

    def _write_people(self, connection: sa.Connection, rows: Sequence[_Row]) -> None:
        new = {row.person.external_id: row for row in rows if row.known is None}
        if new:
            stamps = {"created_at": self._now, "changed_at": self._now}
            values = [
                {"external_id": external_id, **row.values, **stamps} for external_id, row in new.items()
            ]
            connection.execute(recipient.insert(), values)
            for external_id, id_ in _ids(connection, recipient.c.external_id, new).items():
                new[external_id].id = id_
        changed = [row for row in rows if row.known is not None and row.touched]
        if changed:
            update = recipient.update().where(recipient.c.id == sa.bindparam("row_id"))
            values = [{"row_id": row.id, **row.values, "changed_at": self._now} for row in changed]
            connection.execute(
                update.values({name: sa.bindparam(name) for name in values[0] if name != "row_id"}), values
            )
        self._record_moves(connection, [row for row in changed if row.moved])

    def _record_moves(self, connection: sa.Connection, rows: Sequence[_Row]) -> None:
        """Keep which address a person had, in the ledger and with its id, so that erasing them finds it."""
        lines = [
            self._line(
                "address",
                before=row.known.address[:255],
                after=row.person.address.given[:255],
                recipient_id=row.id,
                address_id=row.known.address_id,
            )
            for row in rows
            if row.known is not None
        ]
        if lines:
            connection.execute(change.insert(), lines)

    def _write_wishes(self, connection: sa.Connection, rows: Sequence[_Row], counts: Counts) -> None:
        given_back = self._given_back(connection, [row for row in rows if row.moved])
        known = self._wishes(
            connection, [row.id for row in rows if row.known is not None and row.person.receive is not None]
        )
        after: dict[tuple[int, int], tuple[Wish | None, Wish]] = dict(given_back)
        fresh: list[_Row] = []
        for row in rows:
            key = (row.id, self._store_id)
            before = known.get(row.id)
            current = given_back[key][1] if key in given_back else before
            new = wish(current, row.person, now=self._now)
            if new is not None:
                after[key] = (before, new)
                if new.receive and row.person.consent_at is not None:
                    fresh.append(row)
        touched = {recipient_id for recipient_id, _ in after}
        for row in rows:
            row.touched = row.touched or row.id in touched
        self._store(connection, after)
        self._give_probation(connection, fresh)
        for before, new in after.values():
            if before is None or before.receive is not new.receive:
                counts.opted_in += new.receive
                counts.opted_out += not new.receive

    def _given_back(
        self, connection: sa.Connection, moved: Sequence[_Row]
    ) -> dict[tuple[int, int], tuple[Wish | None, Wish]]:
        """Return the wishes that a hard bounce of the address before took, before and after they are given back."""
        if not moved:
            return {}
        query = sa.select(opt_in).where(
            opt_in.c.recipient_id.in_([row.id for row in moved]),
            opt_in.c.receive.is_(False),
            opt_in.c.source == Source.HARD_BOUNCE,
        )
        back = Wish(True, Source.IMPORT, self._now)
        rows = connection.execute(query.with_for_update())
        return {(row.recipient_id, row.store_id): (_wish(row), back) for row in rows}

    def _wishes(self, connection: sa.Connection, ids: Sequence[int]) -> dict[int, Wish]:
        if not ids:
            return {}
        query = sa.select(opt_in).where(opt_in.c.recipient_id.in_(ids), opt_in.c.store_id == self._store_id)
        return {row.recipient_id: _wish(row) for row in connection.execute(query.with_for_update())}

    def _store(
        self, connection: sa.Connection, after: Mapping[tuple[int, int], tuple[Wish | None, Wish]]
    ) -> None:
        new, changed, lines = [], [], []
        for (recipient_id, store_id), (before, now) in sorted(after.items(), key=lambda item: item[0]):
            key = {"of_recipient": recipient_id, "of_store": store_id}
            values = {"receive": now.receive, "source": now.source, "changed_at": now.changed_at}
            if before is None:
                new.append({"recipient_id": recipient_id, "store_id": store_id, **values})
            else:
                changed.append(key | values)
            text = str(before) if before else ""
            lines.append(
                self._line(
                    "opt_in", before=text, after=str(now), recipient_id=recipient_id, store_id=store_id
                )
            )
        if new:  # a wish that the person uttered in this moment wins
            connection.execute(changes.upsert(connection, opt_in).on_conflict_do_nothing(), new)
        if changed:
            where = (
                opt_in.c.recipient_id == sa.bindparam("of_recipient"),
                opt_in.c.store_id == sa.bindparam("of_store"),
            )
            names = ("receive", "source", "changed_at")
            update = opt_in.update().where(*where).values({name: sa.bindparam(name) for name in names})
            connection.execute(update, changed)
        if lines:
            connection.execute(change.insert(), lines)

    def _line(
        self,
        kind: str,
        *,
        before: str,
        after: str,
        recipient_id: int,
        address_id: int | None = None,
        store_id: int | None = None,
    ) -> dict[str, Any]:
        return {
            "at": self._now,
            "kind": kind,
            "recipient_id": recipient_id,
            "address_id": address_id,
            "store_id": store_id,
            "before": before,
            "after": after,
            "cause": self._cause.kind,
            "who": self._cause.who,
        }

    def _give_probation(self, connection: sa.Connection, fresh: Sequence[_Row]) -> None:
        """Try an undeliverable address again if its owner consented after it had been found so."""
        consented: dict[int, datetime] = {}
        for row in fresh:
            assert row.person.consent_at is not None
            consented[row.address_id] = max(
                row.person.consent_at, consented.get(row.address_id, row.person.consent_at)
            )
        if not consented:
            return
        query = sa.select(recipient_status.c.address_id, recipient_status.c.since).where(
            recipient_status.c.address_id.in_(sorted(consented)),
            recipient_status.c.status == RecipientStatus.UNDELIVERABLE,
        )
        for dead in connection.execute(query).all():
            if consented[dead.address_id] > dead.since:
                changes.set_status(
                    connection,
                    address_id=dead.address_id,
                    status=RecipientStatus.PROBATION,
                    cause=self._cause,
                    now=self._now,
                )


def _known(connection: sa.Connection, external_ids: Sequence[str]) -> dict[str, Any]:
    query = (
        sa.select(recipient, address.c.key)
        .join(address, address.c.id == recipient.c.address_id)
        .where(recipient.c.external_id.in_(external_ids))
    )
    return {row.external_id: row for row in connection.execute(query)}


def _without_erased(connection: sa.Connection, rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows but for those that would bring back an erased person or an erased address."""
    key = erasing.key(connection)
    if key is None:
        return list(rows)
    hashes: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if row.known is None:
            hashes.setdefault(erasing.hash_of_id(key, row.person.external_id), []).append(index)
        if row.known is None or row.moved:
            hashes.setdefault(erasing.hash_of_address(key, row.person.address.key), []).append(index)
    erased = {index for found in erasing.erased(connection, hashes) for index in hashes[found]}
    return [row for index, row in enumerate(rows) if index not in erased]


def _ids(connection: sa.Connection, column: sa.Column[str], values: Iterable[str]) -> dict[str, int]:
    """Return the ids of the rows whose `column` is one of `values`."""
    some = list(values)
    if not some:
        return {}
    rows = connection.execute(sa.select(column, column.table.c.id).where(column.in_(some)))
    return {row[0]: row[1] for row in rows}


def _wish(row: Any) -> Wish:
    return Wish(row.receive, Source(row.source), row.changed_at)


def _differs(row: _Row) -> bool:
    known = row.known
    if known is None:
        return True
    row.id = known.id
    values = row.values
    return (
        row.moved
        or any(values[name] != getattr(known, name) for name in ("address", "name", "locale", "time_zone"))
        or not _same(values["attributes"], known.attributes)
    )


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether attributes are the same; to Python, but not to us, True is 1."""
    return one == other and all(
        isinstance(value, bool) is isinstance(other[name], bool) for name, value in one.items()
    )

"""Imports: people by their external_id, a batch in a transaction, with few statements for many rows.

What a file says of a person's wish is weighed by `wishes.decide`. A changed address gives back the wish that a
`hard_bounce` took. An undeliverable or suspended address gets its probation when its owner consented after it was
found so. Whatever is the same already is not written: an import that runs again changes nothing and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.address import Address
from mailbound.database import bulk, changes, erasing, wishes
from mailbound.database.tables import address, change, domain, recipient, recipient_status
from mailbound.database.wishes import Change
from mailbound.model import RecipientStatus

BATCH = 1000
_TROUBLED = (RecipientStatus.UNDELIVERABLE.value, RecipientStatus.SUSPENDED.value)
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


@dataclass(slots=True, eq=False)
class _Row:
    """A person of the batch, with the row that is known of them, and what it becomes."""

    person: Person
    known: Any | None
    id: int = 0
    address_id: int = 0
    changed: bool = False

    @property
    def needs_address(self) -> bool:
        return self.known is None or self.known.key != self.person.address.key


class Import:
    """One import of one file; it remembers the domains that it has met."""

    def __init__(self, *, store_id: int, who: str, now: datetime) -> None:
        """Take whose opt-in the file speaks of, who imports it, and when."""
        self._store_id = store_id
        self._cause = changes.Cause("import", who=who)
        self._now = now
        self._domains: dict[str, int] = {}

    def apply(self, connection: sa.Connection, people: Sequence[Person]) -> Counts:
        """Write up to `BATCH` people, each external_id once, and return what changed."""
        known = _known(connection, people)
        rows = [_Row(person, known.get(person.external_id)) for person in people]
        kept = _without_erased(connection, rows)
        self._find_addresses(connection, kept)
        new = [row for row in kept if row.known is None]
        old = [row for row in kept if row.known is not None]
        self._insert(connection, new)
        self._update(connection, old)
        opted_in, opted_out = self._write_wishes(connection, kept)
        changed = sum(row.changed for row in old)
        erased = len(rows) - len(kept)
        return Counts(len(new), changed, len(old) - changed, erased, opted_in, opted_out)

    def _find_addresses(self, connection: sa.Connection, rows: Sequence[_Row]) -> None:
        """Give every row the id of its address; new addresses are inserted."""
        wanted = {row.person.address.key: row.person.address for row in rows if row.needs_address}
        ids = _ids(connection, address.c.key, wanted)
        missing = sorted(
            wanted.keys() - ids.keys()
        )  # in one order, so that two imports cannot block each other
        self._find_domains(connection, {wanted[key].domain for key in missing})
        _INSERT_ADDRESS.execute(connection, [(key, self._domains[wanted[key].domain]) for key in missing])
        ids |= _ids(connection, address.c.key, missing)
        for row in rows:
            row.address_id = ids[row.person.address.key] if row.needs_address else _known_row(row).address_id

    def _find_domains(self, connection: sa.Connection, names: set[str]) -> None:
        if len(self._domains) > _MOST_DOMAINS:
            self._domains.clear()
        unknown = sorted(names - self._domains.keys())
        _INSERT_DOMAIN.execute(connection, [(name,) for name in unknown])
        self._domains |= _ids(connection, domain.c.name, unknown)

    def _insert(self, connection: sa.Connection, rows: Sequence[_Row]) -> None:
        now = self._now
        values = [
            (row.person.external_id, row.address_id, *_text(row.person), _attributes(row.person), now, now)
            for row in rows
        ]
        _INSERT.execute(connection, values)
        ids = _ids(connection, recipient.c.external_id, [row.person.external_id for row in rows])
        for row in rows:
            row.id = ids[row.person.external_id]

    def _update(self, connection: sa.Connection, rows: Sequence[_Row]) -> None:
        values, moves = [], []
        for row in rows:
            known = _known_row(row)
            row.id = known.id
            text, attributes = _text(row.person, known), _attributes(row.person, known.attributes)
            row.changed = (
                row.address_id != known.address_id
                or text != (known.address, known.name, known.locale, known.time_zone)
                or not _same(attributes, known.attributes)
            )
            if row.changed:
                values.append((row.id, row.address_id, *text, attributes, self._now))
            if row.needs_address:
                moves.append(self._move(row, known))
        _UPDATE.execute(connection, values)
        _RECORD.execute(connection, moves)

    def _move(self, row: _Row, known: Any) -> tuple[Any, ...]:
        """Return the ledger's line of a changed address, with the old one's id, so that erasing finds it."""
        before, after = known.address[:255], row.person.address.given[:255]
        return (
            self._now,
            "address",
            row.id,
            known.address_id,
            before,
            after,
            self._cause.kind,
            self._cause.who,
        )

    def _write_wishes(self, connection: sa.Connection, rows: Sequence[_Row]) -> tuple[int, int]:
        """Write what the file changes of wishes; return how many it opted in, and how many out."""
        moved = [row.id for row in rows if row.known is not None and row.needs_address]
        changed = wishes.given_back(connection, moved, now=self._now)
        said = [row for row in rows if row.person.receive is not None]
        known = wishes.of_store(connection, [row.id for row in said if row.known is not None], self._store_id)
        consents: dict[int, datetime] = {}
        for row in said:
            key, person, before = (row.id, self._store_id), row.person, known.get(row.id)
            current = changed[key].after if key in changed else before
            after = wishes.decide(
                current, receive=bool(person.receive), consent_at=person.consent_at, now=self._now
            )
            if after is not None:
                changed[key] = Change(before, after)
                if after.receive and person.consent_at:
                    consents[row.address_id] = max(
                        person.consent_at, consents.get(row.address_id, person.consent_at)
                    )
        wishes.write(connection, changed, cause=self._cause, now=self._now)
        self._give_probation(connection, consents)
        touched = {recipient_id for recipient_id, _ in changed}
        for row in rows:
            row.changed = row.changed or row.id in touched
        turned = [each.after.receive for each in changed.values() if _turned(each)]
        return sum(turned), len(turned) - sum(turned)

    def _give_probation(self, connection: sa.Connection, consents: Mapping[int, datetime]) -> None:
        """Try an address again if its owner consented after it had been found undeliverable or suspended."""
        if not consents:
            return
        query = sa.select(recipient_status.c.address_id, recipient_status.c.since).where(
            recipient_status.c.address_id.in_(sorted(consents)),
            recipient_status.c.status.in_(_TROUBLED),
        )
        for dead in connection.execute(query).all():
            if consents[dead.address_id] > dead.since:
                changes.set_status(
                    connection,
                    address_id=dead.address_id,
                    status=RecipientStatus.PROBATION,
                    cause=self._cause,
                    now=self._now,
                )


def _known(connection: sa.Connection, people: Sequence[Person]) -> dict[str, Any]:
    named = bulk.among(connection, recipient.c.external_id, [person.external_id for person in people])
    query = (
        sa.select(recipient, address.c.key).join(address, address.c.id == recipient.c.address_id).where(named)
    )
    return {row.external_id: row for row in connection.execute(query).all()}


def _known_row(row: _Row) -> Any:
    assert row.known is not None  # noqa: S101 - the caller has asked
    return row.known


def _without_erased(connection: sa.Connection, rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows but for those that would bring back an erased person or an erased address."""
    key = erasing.key(connection)
    if key is None:
        return list(rows)
    hashes: dict[str, list[_Row]] = {}
    for row in rows:
        if row.known is None:
            hashes.setdefault(erasing.hash_of_id(key, row.person.external_id), []).append(row)
        if row.needs_address:
            hashes.setdefault(erasing.hash_of_address(key, row.person.address.key), []).append(row)
    erased = {row for found in erasing.erased(connection, hashes) for row in hashes[found]}
    return [row for row in rows if row not in erased]


def _ids(connection: sa.Connection, column: sa.Column[str], values: Collection[str]) -> dict[str, int]:
    """Return the ids of the rows whose `column` is one of `values`."""
    if not values:
        return {}
    query = sa.select(column, column.table.c.id).where(bulk.among(connection, column, values))
    return {row[0]: row[1] for row in connection.execute(query).all()}


def _text(person: Person, known: Any | None = None) -> tuple[str, str, str, str]:
    """Return address, name, locale and time zone; what the file does not say stays."""
    return (
        person.address.given,
        person.name if person.name is not None else known.name if known else "",
        person.locale if person.locale is not None else known.locale if known else "",
        person.time_zone if person.time_zone is not None else known.time_zone if known else "",
    )


def _attributes(person: Person, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    merged = {**known, **person.attributes} if known else person.attributes
    return {name: value for name, value in merged.items() if value is not None}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether attributes are the same; to Python, but not to us, True is 1."""
    return one == other and all(
        isinstance(value, bool) is isinstance(other[name], bool) for name, value in one.items()
    )


def _turned(each: Change) -> bool:
    return each.before is None or each.before.receive is not each.after.receive


_TEXT = ("address_id", "address", "name", "locale", "time_zone", "attributes")
_INSERT_DOMAIN = bulk.Statement(
    lambda connection: changes.upsert(connection, domain).on_conflict_do_nothing(), ("name",)
)
_INSERT_ADDRESS = bulk.Statement(
    lambda connection: changes.upsert(connection, address).on_conflict_do_nothing(), ("key", "domain_id")
)
_INSERT = bulk.Statement(lambda _: recipient.insert(), ("external_id", *_TEXT, "created_at", "changed_at"))
_UPDATE = bulk.Statement(
    lambda _: (
        recipient.update()
        .where(recipient.c.id == sa.bindparam("of_recipient"))
        .values({name: sa.bindparam(f"new_{name}") for name in (*_TEXT, "changed_at")})
    ),
    ("of_recipient", *(f"new_{name}" for name in (*_TEXT, "changed_at"))),
)
_RECORD = bulk.Statement(
    lambda _: change.insert(),
    ("at", "kind", "recipient_id", "address_id", "before", "after", "cause", "who"),
)

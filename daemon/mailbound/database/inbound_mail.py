"""Mail from the inbound accounts: kept raw before anything else, then read, and never lost."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from mailbound import packing
from mailbound.database import bulk, changes, raw_mail
from mailbound.database.adding import Adding
from mailbound.database.tables import bounce, inbound_mail, inbound_pack, inbound_raw, store
from mailbound.errors import InputError
from mailbound.model import Disposition, Kind
from mailbound.packing import Pack, Packed

NEW = "new"
READ = "read"
POISON = "poison"

_AT_ONCE_OCTETS = 32 * 2**20

_HEAD_OCTETS = 4096
_READ_OCTETS = 65_536
"""Of the beginning of a packed mail, and of what comes out of it: there the header stands, and no more is needed."""

HELD_OCTETS = sa.case((inbound_mail.c.truncated, inbound_raw.c.length), else_=inbound_mail.c.size_octets)
"""What a kept mail counts for: of one that was too large, only what was fetched of it."""

TRIES = 2
"""A mail whose reading killed the reader this often is poison: it is kept, shown, and read no more."""


@dataclass(frozen=True)
class Arrival:
    """A mail as the mailbox handed it over."""

    uid: str
    content: bytes
    size_octets: int
    truncated: bool

    @cached_property
    def sha256(self) -> str:
        """Return the hash that tells it from others of the same uid."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def held_octets(self) -> int:
        """Return what it counts for, once it is kept."""
        return len(self.content) if self.truncated else self.size_octets


@dataclass(frozen=True, slots=True)
class Unread:
    """A kept mail that is to be read."""

    id: int
    store_id: int
    fetched_at: datetime
    attempts: int  # this one included
    packed: Packed

    @property
    def content(self) -> bytes:
        """Return the mail as the mailbox handed it over."""
        return packing.unpack(self.packed)

    @property
    def is_poison(self) -> bool:
        """Return whether it has been set aside, and is not to be read."""
        return self.attempts > TRIES


def keep(
    connection: sa.Connection,
    store_id: int,
    arrivals: Sequence[Arrival],
    *,
    now: datetime,
    packs: Sequence[Pack] | None = None,
) -> int:
    """Keep raw mail; return how many were new. A mail counts once, by its uid and content.

    `packs` has the same mails packed together, where that was done before: it takes longer than the transaction.
    """
    rows = [
        (store_id, each.uid[:255], each.sha256, each.size_octets, each.truncated, now, NEW)
        for each in arrivals
    ]
    numbers = _KEPT.numbers(connection, rows)
    contents = [arrival.content for arrival in arrivals]
    raw_mail.keep(connection, numbers, contents, packing.together(contents) if packs is None else packs)
    return len(numbers) - numbers.count(None)


_KEPT = Adding(
    lambda connection: changes.upsert(connection, inbound_mail).on_conflict_do_nothing(),
    ("store_id", "uid", "sha256", "size_octets", "truncated", "fetched_at", "state"),
    inbound_mail.c.id,
    ("uid", "sha256"),
)


def known(connection: sa.Connection, store_id: int, uids: Sequence[str]) -> set[str]:
    """Return which of `uids` are kept already, so that mail left on the server is not fetched again."""
    found: set[str] = set()
    for start in range(0, len(uids), 500):
        query = sa.select(inbound_mail.c.uid).where(
            inbound_mail.c.store_id == store_id, inbound_mail.c.uid.in_(uids[start : start + 500])
        )
        found.update(connection.execute(query).scalars())
    return found


def take(connection: sa.Connection, *, limit: int) -> list[Unread]:
    """Return new mail to read, the oldest first. The try is counted now, so that poison is known by its tries.

    What had its tries is set aside, and given for the last time, to be told of. What was tried before is given alone:
    whatever a crash cuts off, no mail becomes suspect for the company it keeps.
    """
    found = _OLDEST.rows(connection, after=0, limit=limit)
    mails = _count(connection, _untried(found) or found[:1])
    poisonous = [mail.id for mail in mails if mail.is_poison]
    if poisonous:
        poison(connection, poisonous, why=f"reading it failed {TRIES} times")
    return mails


def follow(connection: sa.Connection, *, after: int, limit: int) -> list[Unread]:
    """Return new mail that came after the mail `after`, as `take` does; none if the first one was tried before."""
    return _count(connection, _untried(_OLDEST.rows(connection, after=after, limit=limit)))


def _untried(found: Sequence[_Size]) -> Sequence[_Size]:
    """Return the first mails up to one that was tried before, or to what may lie in memory."""
    octets = itertools.accumulate(size for _, _, size in found)
    untried = itertools.takewhile(
        lambda pair: pair[0][1] == 0 and pair[1] <= _AT_ONCE_OCTETS, zip(found, octets, strict=True)
    )
    return [mail for mail, _ in untried]


def _count(connection: sa.Connection, chosen: Sequence[_Size]) -> list[Unread]:
    """Count a try of mails, and return them."""
    if not chosen:
        return []
    numbers = [mail_id for mail_id, _, _ in chosen]
    ids = bulk.packed(connection, numbers)
    _COUNTED.execute(connection, ids=ids)
    octets = raw_mail.taken(connection, numbers)
    return [
        Unread(mail_id, store_id, bulk.moment(fetched_at), attempts, octets[mail_id])
        for mail_id, store_id, fetched_at, attempts in _TAKEN.rows(connection, ids=ids)
        if mail_id in octets
    ]


_Size = tuple[Any, ...]
"""The id of a mail, how often it was tried, and how large it is."""


def _oldest(_: sa.Connection) -> sa.Select[Any]:
    return (
        sa.select(inbound_mail.c.id, inbound_mail.c.attempts, inbound_mail.c.size_octets)
        .where(
            inbound_mail.c.state == NEW,
            inbound_mail.c.id > sa.bindparam("after", type_=inbound_mail.c.id.type),
        )
        .order_by(inbound_mail.c.id)
        .limit(sa.bindparam("limit", type_=sa.Integer()))
        .with_for_update(skip_locked=True)
    )


def _counted(connection: sa.Connection) -> sa.Update:
    ids = bulk.listed(connection, inbound_mail.c.id, "ids")
    return inbound_mail.update().where(ids).values(attempts=inbound_mail.c.attempts + 1)


def _taken(connection: sa.Connection) -> sa.Select[Any]:
    columns = (inbound_mail.c[name] for name in ("id", "store_id", "fetched_at", "attempts"))
    which = bulk.listed(connection, inbound_mail.c.id, "ids")
    return sa.select(*columns).where(which).order_by(inbound_mail.c.id)


_OLDEST = bulk.Query(_oldest)
_COUNTED = bulk.Query(_counted)
_TAKEN = bulk.Query(_taken)


def ours(connection: sa.Connection, mails: Sequence[Unread]) -> list[Unread]:
    """Return those mails that still wait for the one who took them, and let nobody else take them until the end.

    The try that was counted tells: who takes a mail counts one, so nobody took it since.
    """
    ids = bulk.packed(connection, [mail.id for mail in mails])
    attempts = dict(_STILL_NEW.rows(connection, ids=ids)) if mails else {}
    return [mail for mail in mails if attempts.get(mail.id) == mail.attempts]


def _still_new(connection: sa.Connection) -> sa.Select[Any]:
    return (
        sa.select(inbound_mail.c.id, inbound_mail.c.attempts)
        .where(bulk.listed(connection, inbound_mail.c.id, "ids"), inbound_mail.c.state == NEW)
        .order_by(inbound_mail.c.id)
        .with_for_update()
    )


_STILL_NEW = bulk.Query(_still_new)


def poison(connection: sa.Connection, ids: Sequence[int], *, why: str) -> None:
    """Set mail aside that cannot be read."""
    values = {"state": POISON, "why": why[:255]}
    connection.execute(inbound_mail.update().where(inbound_mail.c.id.in_(ids)).values(values))


@dataclass(frozen=True, slots=True)
class Understood:
    """What a mail was."""

    mail_id: int
    kind: Kind
    subject: str
    why: str


def settle(connection: sa.Connection, mails: Sequence[Understood], *, now: datetime) -> None:
    """Write what mails were."""
    rows = [(each.mail_id, READ, each.kind.value, each.subject[:255], each.why[:255], now) for each in mails]
    _SETTLED.execute(connection, rows)


_NEW: dict[str, sa.BindParameter[Any]] = {
    name: sa.bindparam(f"new_{name}") for name in ("state", "kind", "subject", "why", "read_at")
}
_SETTLED = bulk.Statement(
    lambda _: inbound_mail.update().where(inbound_mail.c.id == sa.bindparam("mail_id")).values(_NEW),
    ("mail_id", *(parameter.key for parameter in _NEW.values())),
)


def find_raw(connection: sa.Connection, mail_id: int) -> bytes | None:
    """Return a kept mail, or None if it is not there, or no longer."""
    return raw_mail.find(connection, mail_id)


def raw(connection: sa.Connection, mail_id: int) -> bytes:
    """Return a kept mail. Raises InputError if it is not there, or no longer."""
    content = find_raw(connection, mail_id)
    if content is None:
        raise _not_kept(mail_id)
    return content


def _not_kept(mail_id: int) -> InputError:
    return InputError(f"mail {mail_id} is not kept; `mailbound bounce list --mail` shows what is")


def recent(connection: sa.Connection, *, kinds: Sequence[str] = (), limit: int = 50) -> Sequence[Any]:
    """Return kept mail, the latest first: its id, store, state, kind, subject, why, time, and what `head` takes."""
    enough = inbound_raw.c.begin + _HEAD_OCTETS  # no pack is larger than what is in it
    content = inbound_pack.c.content
    begins = sa.func.substr(content, 1, enough, type_=content.type).label("pack")
    query = (
        sa.select(
            inbound_mail, store.c.name.label("store"), begins, inbound_raw.c.begin, inbound_raw.c.length
        )
        .select_from(inbound_mail.join(raw_mail.JOINED, inbound_raw.c.mail_id == inbound_mail.c.id))
        .join(store, store.c.id == inbound_mail.c.store_id)
        .order_by(inbound_mail.c.id.desc())
        .limit(limit)
    )
    if kinds:
        query = query.where(inbound_mail.c.kind.in_(kinds))
    return connection.execute(query).all()


def head(row: Any) -> bytes:
    """Return where a mail begins, of a row of `recent`."""
    mail = Packed(bytes(row.pack), row.begin, row.length)
    return next(packing.heads([mail], most=_READ_OCTETS))


_PUZZLING = sa.or_(
    inbound_mail.c.state == POISON,
    sa.and_(inbound_mail.c.state == READ, inbound_mail.c.kind == Kind.UNRECOGNISED),
)
_UNDERSTOOD = sa.and_(inbound_mail.c.state == READ, inbound_mail.c.kind != Kind.UNRECOGNISED)
_WAITING = sa.exists().where(
    bounce.c.mail_id == inbound_mail.c.id,
    bounce.c.disposition.in_((Disposition.QUARANTINED.value, Disposition.HELD.value)),
)


def puzzling(connection: sa.Connection) -> Sequence[Any]:
    """Return the kept mail that nobody could make anything of, the oldest first: its id and state."""
    query = sa.select(inbound_mail.c.id, inbound_mail.c.state).select_from(_raw()).where(_PUZZLING)
    return connection.execute(query.order_by(inbound_mail.c.id)).all()


def drop(connection: sa.Connection, mail_id: int, *, who: str) -> None:
    """Forget the octets of a mail that nobody could make anything of. Raises InputError if it is no such mail."""
    which = inbound_mail.c.id == mail_id
    query = sa.select(inbound_mail.c.state, inbound_mail.c.kind, _PUZZLING.label("puzzling"))
    row = connection.execute(query.select_from(_raw()).where(which)).one_or_none()
    if row is None:
        raise _not_kept(mail_id)
    if not row.puzzling:
        understood = f"was understood, as {row.kind}" if row.kind else "is still to be read"
        raise InputError(f"mail {mail_id} {understood}; it goes by itself")
    connection.execute(inbound_mail.update().where(which).values(why=f"dropped by {who}"[:255]))
    raw_mail.forget(connection, [mail_id])


def held_octets(connection: sa.Connection) -> int:
    """Return how many octets of raw mail are kept."""
    return _octets(connection)


def pinned_octets(connection: sa.Connection) -> int:
    """Return how many octets make no room by themselves: unread, poison, or waiting for a person."""
    return _octets(connection, sa.or_(inbound_mail.c.state.in_((NEW, POISON)), _WAITING))


def poison_octets(connection: sa.Connection) -> int:
    """Return how many octets of poison are kept: they go only when a person drops them."""
    return _octets(connection, inbound_mail.c.state == POISON)


def _octets(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> int:
    held = sa.select(sa.func.coalesce(sa.func.sum(HELD_OCTETS), 0)).select_from(_raw()).where(*which)
    return int(connection.execute(held).scalar_one())


def purge(connection: sa.Connection, *, before: datetime, limit: int = 1000) -> int:
    """Drop the raw bytes of understood mail fetched before `before`, the oldest first; return how many."""
    old = _first(limit, _UNDERSTOOD).where(inbound_mail.c.fetched_at < before)
    return raw_mail.forget(connection, [row.id for row in connection.execute(old)])


@dataclass(frozen=True, slots=True)
class Room:
    """What was made of it: mails that are not kept any more, and their octets."""

    mails: int
    octets: int


def make_room(connection: sa.Connection, *, octets: int, limit: int = 1000) -> Room:
    """Drop the raw bytes of the oldest understood mail, until so many `octets` are gone, and return what went.

    If there is none, what was not understood goes. What was not read stays, and what waits for a person; so it may be
    less than asked for.
    """
    understood = connection.execute(_first(limit, _UNDERSTOOD, sa.not_(_WAITING))).all()
    rows = understood or connection.execute(_first(limit, inbound_mail.c.state == READ, sa.not_(_WAITING)))
    gone, freed = [], 0
    for row in rows:
        if freed >= octets:
            break
        gone.append(row.id)
        freed += row.octets
    return Room(raw_mail.forget(connection, gone), freed)


def _raw() -> sa.Join:
    return inbound_raw.join(inbound_mail, inbound_mail.c.id == inbound_raw.c.mail_id)


def _first(limit: int, *which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(inbound_mail.c.id, HELD_OCTETS.label("octets"))
        .select_from(_raw())
        .where(*which)
        .order_by(inbound_raw.c.mail_id)
        .limit(limit)
    )

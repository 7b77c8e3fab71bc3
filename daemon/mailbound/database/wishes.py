"""Wishes of many people at once, as an import changes them; one by one they are changed by `changes.set_opt_in`.

An import says what the host system knows, which is not always the last word:

    no row yet for the store        a row with the source `import`
    its consent is newer            the person's own new wish: source `user`
    the row's source is `import`    the file decides
    anything else                   it stays as it is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.database import bulk, changes
from mailbound.database.tables import change, opt_in
from mailbound.model import Source

Key = tuple[int, int]
"""A recipient and a store, by their ids."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A row of `opt_in`."""

    receive: bool
    source: Source
    changed_at: datetime

    def __str__(self) -> str:
        """Return it as the ledger writes it."""
        return f"{'in' if self.receive else 'out'} ({self.source.value})"


@dataclass(frozen=True, slots=True)
class Change:
    """A wish before and after; `before` is None if there was none."""

    before: Wish | None
    after: Wish


def decide(before: Wish | None, *, receive: bool, consent_at: datetime | None, now: datetime) -> Wish | None:
    """Return what an import that says `receive` makes of a wish, or None if the wish stays as it is."""
    if before is None:
        return Wish(receive, Source.IMPORT, consent_at or now)
    if consent_at is not None and consent_at > before.changed_at:
        return Wish(receive, Source.USER, consent_at)
    if before.source is Source.IMPORT and before.receive is not receive:
        return Wish(receive, Source.IMPORT, now)
    return None


def of_store(connection: sa.Connection, recipient_ids: Sequence[int], store_id: int) -> dict[int, Wish]:
    """Return the wishes of some people for a store, held against change until the transaction ends."""
    if not recipient_ids:
        return {}
    people = bulk.among(connection, opt_in.c.recipient_id, recipient_ids)
    query = sa.select(opt_in).where(people, opt_in.c.store_id == store_id).with_for_update()
    return {row.recipient_id: _wish(row) for row in connection.execute(query).all()}


def given_back(
    connection: sa.Connection, recipient_ids: Sequence[int], *, now: datetime
) -> dict[Key, Change]:
    """Return how the wishes that a hard bounce took are given back, now that its address is no longer theirs."""
    if not recipient_ids:
        return {}
    query = sa.select(opt_in).where(
        bulk.among(connection, opt_in.c.recipient_id, recipient_ids),
        opt_in.c.receive.is_(False),
        opt_in.c.source == Source.HARD_BOUNCE,
    )
    after = Wish(True, Source.IMPORT, now)
    rows = connection.execute(query.with_for_update())
    return {(row.recipient_id, row.store_id): Change(_wish(row), after) for row in rows}


def write(
    connection: sa.Connection, changed: Mapping[Key, Change], *, cause: changes.Cause, now: datetime
) -> None:
    """Write wishes, and a line of the ledger for each."""
    in_order = sorted(changed.items(), key=lambda item: item[0])
    _INSERT.execute(connection, [(*key, *_values(each)) for key, each in in_order if each.before is None])
    _UPDATE.execute(connection, [(*key, *_values(each)) for key, each in in_order if each.before is not None])
    lines = [
        (now, "opt_in", recipient_id, store_id, _text(each.before), str(each.after), cause.kind, cause.who)
        for (recipient_id, store_id), each in in_order
    ]
    _RECORD.execute(connection, lines)


def _values(each: Change) -> tuple[bool, str, datetime]:
    return each.after.receive, each.after.source.value, each.after.changed_at


def _text(wish: Wish | None) -> str:
    return str(wish) if wish else ""


def _wish(row: Any) -> Wish:
    return Wish(row.receive, Source(row.source), row.changed_at)


_INSERT = bulk.Statement(  # a wish that the person utters in this very moment wins
    lambda connection: changes.upsert(connection, opt_in).on_conflict_do_nothing(),
    ("recipient_id", "store_id", "receive", "source", "changed_at"),
)
_UPDATE = bulk.Statement(
    lambda _: (
        opt_in.update()
        .where(
            opt_in.c.recipient_id == sa.bindparam("of_recipient"),
            opt_in.c.store_id == sa.bindparam("of_store"),
        )
        .values({name: sa.bindparam(f"new_{name}") for name in ("receive", "source", "changed_at")})
    ),
    ("of_recipient", "of_store", "new_receive", "new_source", "new_changed_at"),
)
_RECORD = bulk.Statement(
    lambda _: change.insert(),
    ("at", "kind", "recipient_id", "store_id", "before", "after", "cause", "who"),
)

"""Stores and their numbers, which tokens carry; the names come from the configuration."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from mailbound.database.tables import store
from mailbound.errors import InputError

ALL = "*"
ALL_ID = 0


def keep(connection: sa.Connection, names: Iterable[str]) -> dict[str, int]:
    """Give every store of the configuration a number, for ever; return all numbers, `*` included."""
    known = numbers(connection)
    free = max(known.values(), default=ALL_ID) + 1
    for name in (ALL, *names):
        if name not in known:
            known[name] = ALL_ID if name == ALL else free
            free += name != ALL
            connection.execute(store.insert().values(id=known[name], name=name))
    return known


def numbers(connection: sa.Connection) -> dict[str, int]:
    """Return the number of each store by its name."""
    return {row.name: row.id for row in connection.execute(sa.select(store))}


def number(connection: sa.Connection, name: str) -> int:
    """Return the number of the store `name`. Raises InputError, naming those there are."""
    known = numbers(connection)
    if name not in known:
        raise InputError(f"there is no store {name!r}; there are: {', '.join(sorted(known))}")
    return known[name]

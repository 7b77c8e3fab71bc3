"""Statements for many rows: both engines tell the same of them."""

from __future__ import annotations

import sqlalchemy as sa

from mailbound.database import bulk, changes
from mailbound.database.tables import change, domain
from world import NOW, world

_INSERT = bulk.Insert(
    lambda connection: changes.upsert(connection, domain).on_conflict_do_nothing(),
    ("name",),
    returning=(domain.c.id, domain.c.name),
)


def test_an_insert_tells_of_the_rows_that_it_added_and_of_no_others(database_url: str) -> None:
    with world(database_url) as here:
        first = _INSERT.rows(here.connection, [("a.test",), ("b.test",)])
        again = _INSERT.rows(here.connection, [("b.test",), ("c.test",), ("c.test",)])
        kept = {
            name: number for number, name in here.connection.execute(sa.select(domain.c.id, domain.c.name))
        }
        assert sorted((name, number) for number, name in first) == [
            (n, kept[n]) for n in ("a.test", "b.test")
        ]
        assert [(name, number) for number, name in again] == [("c.test", kept["c.test"])]


def test_an_insert_of_nothing_tells_nothing(database_url: str) -> None:
    with world(database_url) as here:
        assert not _INSERT.rows(here.connection, [])


def test_a_moment_is_the_same_from_both_engines(database_url: str) -> None:
    query = bulk.Rows(lambda _: sa.select(sa.bindparam("now", NOW, type_=_MOMENT), sa.null().label("never")))
    with world(database_url) as here:
        ((now, never),) = query.get(here.connection)
        assert (bulk.moment(now), bulk.moment(never)) == (NOW, None)


_MOMENT = change.c.at.type

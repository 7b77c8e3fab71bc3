"""The keys that all nodes sign with. One signs, those before it still verify, and what a revoked one signed is forged.

A run keeps the key that it began with, so that a retry mints the same tokens.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from mailbound import tokens
from mailbound.database import changes
from mailbound.database.tables import run, token_key
from mailbound.errors import InputError

_OF_HASHES = 0  # it outlives every rotation and revocation, since its hashes do
_MOST = 32  # an id has five bits


@dataclass(frozen=True, slots=True)
class Known:
    """A key as an operator sees it, without its secret."""

    id: int
    state: str  # signs, verifies, revoked
    created_at: datetime
    retired_at: datetime | None
    revoked_at: datetime | None
    runs: int
    used_at: datetime | None  # when the latest of its runs started


def verifying(connection: sa.Connection) -> dict[int, tokens.Key]:
    """Return the keys that verify by id: all but the revoked."""
    query = sa.select(token_key).where(token_key.c.revoked_at.is_(None))
    return {row.id: tokens.Key(row.id, bytes(row.secret)) for row in connection.execute(query)}


def signing(connection: sa.Connection, *, now: datetime) -> tokens.Key:
    """Return the key that new tokens are signed with; the first call of a database makes one."""
    first = {"id": _OF_HASHES, "secret": secrets.token_bytes(32), "created_at": now}
    connection.execute(changes.upsert(connection, token_key).values(first).on_conflict_do_nothing())
    newest = (
        sa.select(token_key).where(token_key.c.retired_at.is_(None)).order_by(token_key.c.created_at.desc())
    )
    row = connection.execute(newest.limit(1)).one()
    return tokens.Key(row.id, bytes(row.secret))


def of_hashes(connection: sa.Connection) -> tokens.Key:
    """Return the key by whose hashes the erased are known again. There must be one: `signing` makes it."""
    secret = sa.select(token_key.c.secret).where(token_key.c.id == _OF_HASHES)
    return tokens.Key(_OF_HASHES, bytes(connection.execute(secret).scalar_one()))


def rotate(connection: sa.Connection, *, now: datetime) -> tokens.Key:
    """Make a key that new runs sign with; the one before it still verifies. Raises InputError if no id is left."""
    signing(connection, now=now)  # two who rotate at once wait for each other here
    connection.execute(token_key.update().where(token_key.c.retired_at.is_(None)).values(retired_at=now))
    secret = secrets.token_bytes(32)
    row = {"secret": secret, "created_at": now, "retired_at": None, "revoked_at": None}
    taken = {known.id: known for known in everything(connection)}
    free = next((number for number in range(_MOST) if number not in taken), None)
    if free is not None:
        connection.execute(token_key.insert().values(id=free, **row))
        return tokens.Key(free, secret)
    # What a revoked key signed does not verify with a new secret either, so its id can be had again.
    revoked = [number for number, known in taken.items() if known.revoked_at and number != _OF_HASHES]
    if not revoked:
        raise InputError(f"there are {_MOST} keys already; revoke one whose tokens nobody needs any more")
    connection.execute(token_key.update().where(token_key.c.id == min(revoked)).values(row))
    return tokens.Key(min(revoked), secret)


def revoke(connection: sa.Connection, key_id: int, *, now: datetime) -> tokens.Key:
    """Let all that a key signed count as forged, and return the key that signs from now on.

    Runs that signed with it go on with that one. Raises InputError if there is no such key, or it is revoked already.
    """
    known = {each.id: each for each in everything(connection)}.get(key_id)
    if known is None:
        raise InputError(f"there is no key {key_id}; `mailbound config keys` shows those there are")
    if known.revoked_at is not None:
        raise InputError(f"key {key_id} is revoked already")
    signs = rotate(connection, now=now) if known.retired_at is None else signing(connection, now=now)
    connection.execute(token_key.update().where(token_key.c.id == key_id).values(revoked_at=now))
    connection.execute(run.update().where(run.c.key_id == key_id).values(key_id=signs.id))
    return signs


def everything(connection: sa.Connection) -> list[Known]:
    """Return all keys and how they are used, the newest first."""
    used = (
        sa.select(run.c.key_id, sa.func.count().label("runs"), sa.func.max(run.c.started_at).label("used_at"))
        .group_by(run.c.key_id)
        .subquery()
    )
    query = (
        sa.select(token_key, used.c.runs, used.c.used_at)
        .outerjoin(used, used.c.key_id == token_key.c.id)
        .order_by(token_key.c.created_at.desc(), token_key.c.id.desc())
    )
    return [
        Known(
            row.id,
            "revoked" if row.revoked_at else "verifies" if row.retired_at else "signs",
            row.created_at,
            row.retired_at,
            row.revoked_at,
            row.runs or 0,
            row.used_at,
        )
        for row in connection.execute(query)
    ]

"""Taking back what a bounce or a replay changed, line by line of the ledger, and only while its value still stands.

What comes back is what the ledger says was there before. What an undone bounce had written, but something else has
overwritten since, never comes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.database import changes, suppressions
from mailbound.database.changes import Cause
from mailbound.database.tables import bounce, change, delivery, opt_in, recipient_status
from mailbound.lifecycle import DeliveryState
from mailbound.model import Disposition, RecipientStatus, Source

_VALUE = re.compile(r"([\w-]+)(?: \(([\w-]+)\))?(?: until (\S+))?")


@dataclass(slots=True)
class Undone:
    """What was taken back, and what stays since somebody changed it in the meantime: lines of the ledger."""

    restored: list[Any] = field(default_factory=list)
    overtaken: list[Any] = field(default_factory=list)


def undo_bounces(
    connection: sa.Connection, bounce_ids: Iterable[int], *, cause: Cause, now: datetime
) -> Undone:
    """Take back what bounces changed, so that they count no more; a score folded from them is less by them.

    Nothing is sent again for their sake.
    """
    ids = list(bounce_ids)
    undone = undo(connection, _lines(connection, change.c.bounce_id.in_(ids)), cause=cause, now=now)
    connection.execute(bounce.update().where(bounce.c.id.in_(ids)).values(disposition=Disposition.UNDONE))
    spoken_of = sa.select(bounce.c.delivery_id).where(bounce.c.id.in_(ids))
    waiting = delivery.c.id.in_(spoken_of), delivery.c.state == DeliveryState.BOUNCED
    connection.execute(delivery.update().where(*waiting).values(next_attempt_at=None))
    return undone


def undo_replay(connection: sa.Connection, name: str, *, cause: Cause, now: datetime) -> Undone:
    """Take back what a replay changed."""
    its = (change.c.cause == "replay") & (change.c.who == name)
    return undo(connection, _lines(connection, its), cause=cause, now=now)


def undo(connection: sa.Connection, lines: Sequence[Any], *, cause: Cause, now: datetime) -> Undone:
    """Take back lines of the ledger, the latest first."""
    undone = Undone()
    for line in lines:
        its_cause = cause._replace(undoes=line.id)
        restored = _RESTORE[line.kind](connection, line, cause=its_cause, now=now)
        (undone.restored if restored else undone.overtaken).append(line)
    return undone


def _lines(connection: sa.Connection, which: sa.ColumnElement[bool]) -> Sequence[Any]:
    """Return lines that were not taken back yet, the latest first."""
    later = change.alias("later")
    taken_back = sa.exists().where(later.c.undoes == change.c.id)
    query = sa.select(change).where(which, sa.not_(taken_back), change.c.kind.in_(tuple(_RESTORE)))
    return connection.execute(query.order_by(change.c.id.desc())).all()


def _restore_opt_in(connection: sa.Connection, line: Any, *, cause: Cause, now: datetime) -> bool:
    key = (opt_in.c.recipient_id == line.recipient_id) & (opt_in.c.store_id == line.store_id)
    row = connection.execute(sa.select(opt_in).where(key)).one_or_none()
    if row is None or changes.wish(row.receive, row.source) != line.after or not _stands(connection, line):
        return False
    before, author = _before(connection, line)
    if value := _VALUE.fullmatch(before):
        changes.set_opt_in(
            connection,
            recipient_id=line.recipient_id,
            store_id=line.store_id,
            receive=value[1] == "in",
            source=Source(value[2]),
            cause=cause,
            now=now,
        )
        if author is not None:
            connection.execute(opt_in.update().where(key).values(changed_at=author.at))
        return True
    connection.execute(opt_in.delete().where(key))
    place = {"recipient_id": line.recipient_id, "store_id": line.store_id}
    changes.record(connection, kind="opt_in", before=line.after, after="", cause=cause, now=now, **place)
    return True


def _restore_status(connection: sa.Connection, line: Any, *, cause: Cause, now: datetime) -> bool:
    key = recipient_status.c.address_id == line.address_id
    row = connection.execute(sa.select(recipient_status).where(key)).one_or_none()
    if row is None or changes.standing(row.status, row.category, row.until) != line.after:
        return False
    before, author = _before(connection, line)
    value = _VALUE.fullmatch(before)
    if value is None or not _stands(connection, line):
        return False
    changes.set_status(
        connection,
        address_id=line.address_id,
        status=RecipientStatus(value[1]),
        category=value[2] or "",
        until=datetime.fromisoformat(value[3]) if value[3] else None,
        cause=cause,
        now=now,
    )
    if author is not None:
        was = {"since": author.at, "bounce_id": author.bounce_id}
        connection.execute(recipient_status.update().where(key).values(was))
    return True


_RESTORE = {"opt_in": _restore_opt_in, "status": _restore_status, "suppression": suppressions.restore}


# --- who wrote what stands -----------------------------------------------------------------------------------


def _stands(connection: sa.Connection, line: Any) -> bool:
    """Return whether nobody has written another value since, though it may be the same one in words."""
    latest = connection.execute(_of_subject(line).order_by(change.c.id.desc()).limit(1)).one()
    authors = [_author(connection, each) for each in (latest, line)]
    return len({author and author.id for author in authors}) == 1


def _before(connection: sa.Connection, line: Any) -> tuple[str, Any | None]:
    """Return what stood before `line`, and the line that wrote it; None if it was there from the start."""
    author = _author_before(connection, line)
    if author is not None:
        return author.after, author
    first = connection.execute(_of_subject(line).order_by(change.c.id).limit(1)).one()
    return first.before, None


def _author(connection: sa.Connection, line: Any) -> Any | None:
    """Return who wrote what stands after `line`: itself or, where it took another one back, who wrote before that."""
    return line if line.undoes is None else _author_before(connection, _find(connection, line.undoes))


def _author_before(connection: sa.Connection, line: Any) -> Any | None:
    if line.undoes is not None:
        return _author(connection, _find(connection, line.undoes))
    earlier = _of_subject(line).where(change.c.id < line.id).order_by(change.c.id.desc()).limit(1)
    previous = connection.execute(earlier).one_or_none()
    author = None if previous is None else _author(connection, previous)
    while author is not None and _counts_no_more(connection, author):
        author = _author_before(connection, author)
    return author


def _of_subject(line: Any) -> sa.Select[Any]:
    """Return the lines about the same thing: a wish of somebody for a store, or the status of an address."""
    place = {name: getattr(line, name) for name in ("kind", "recipient_id", "store_id", "address_id")}
    # `=` where there is a value, since PostgreSQL uses no index for IS NOT DISTINCT FROM.
    same = (
        change.c[name].is_(None) if value is None else change.c[name] == value
        for name, value in place.items()
    )
    return sa.select(change).where(*same)


def _find(connection: sa.Connection, line_id: int) -> Any:
    return connection.execute(sa.select(change).where(change.c.id == line_id)).one()


def _counts_no_more(connection: sa.Connection, line: Any) -> bool:
    """Return whether a bounce wrote the line that has been undone, is held, or means something else by now."""
    its = sa.select(bounce.c.id).where(
        bounce.c.id == line.bounce_id, bounce.c.disposition != Disposition.APPLIED
    )
    return connection.execute(its).first() is not None

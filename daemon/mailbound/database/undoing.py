"""Taking back what a bounce or a replay changed, line by line of the ledger, and only while its value still stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.database import changes, suppressions
from mailbound.database.changes import Cause
from mailbound.database.tables import bounce, change, opt_in, recipient_status
from mailbound.model import Disposition, RecipientStatus, Source

_VALUE = re.compile(r"([\w-]+)(?: \(([\w-]+)\))?")


@dataclass(slots=True)
class Undone:
    """What was taken back, and what stays since somebody changed it in the meantime: lines of the ledger."""

    restored: list[Any] = field(default_factory=list)
    overtaken: list[Any] = field(default_factory=list)


def undo_bounces(
    connection: sa.Connection, bounce_ids: Iterable[int], *, cause: Cause, now: datetime
) -> Undone:
    """Take back what bounces changed, so that they count no more; a score folded from them is less by them."""
    ids = list(bounce_ids)
    undone = undo(connection, _lines(connection, change.c.bounce_id.in_(ids)), cause=cause, now=now)
    connection.execute(bounce.update().where(bounce.c.id.in_(ids)).values(disposition=Disposition.UNDONE))
    return undone


def undo_replay(connection: sa.Connection, name: str, *, cause: Cause, now: datetime) -> Undone:
    """Take back what a replay changed."""
    its = (change.c.cause == "replay") & (change.c.who == name)
    return undo(connection, _lines(connection, its), cause=cause, now=now)


def undo(connection: sa.Connection, lines: Sequence[Any], *, cause: Cause, now: datetime) -> Undone:
    """Take back lines of the ledger, the latest first."""
    undone = Undone()
    for line in lines:
        its_cause = replace(cause, undoes=line.id)
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
    if row is None or changes.wish(row.receive, row.source) != line.after:
        return False
    if before := _VALUE.fullmatch(line.before):
        changes.set_opt_in(
            connection,
            recipient_id=line.recipient_id,
            store_id=line.store_id,
            receive=before[1] == "in",
            source=Source(before[2]),
            cause=cause,
            now=now,
        )
        return True
    connection.execute(opt_in.delete().where(key))
    place = {"recipient_id": line.recipient_id, "store_id": line.store_id}
    changes.record(connection, kind="opt_in", before=line.after, after="", cause=cause, now=now, **place)
    return True


def _restore_status(connection: sa.Connection, line: Any, *, cause: Cause, now: datetime) -> bool:
    key = recipient_status.c.address_id == line.address_id
    row = connection.execute(sa.select(recipient_status).where(key)).one_or_none()
    before = _VALUE.fullmatch(line.before)
    if row is None or before is None or changes.standing(row.status, row.category) != line.after:
        return False
    return changes.set_status(
        connection,
        address_id=line.address_id,
        status=RecipientStatus(before[1]),
        category=before[2] or "",
        cause=cause,
        now=now,
    )


_RESTORE = {"opt_in": _restore_opt_in, "status": _restore_status, "suppression": suppressions.restore}

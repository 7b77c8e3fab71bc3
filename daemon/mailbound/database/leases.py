"""Work that one node does for all: starting runs, reading mail, and fetching from each mailbox.

A lease belongs to a node for as long as the node lives, so the one heartbeat of a node keeps all its leases, and what
gives up the node frees them. Whoever holds one asks again before each step. A step that began before the lease was
lost does no harm: it is one transaction, and its rows tell whether another node was there first.
"""

from __future__ import annotations

import sqlalchemy as sa
import structlog

from mailbound.database import changes, nodes
from mailbound.database.engine import Database
from mailbound.database.tables import lease, node

log = structlog.get_logger()


class Lease:
    """One such work, as a node that would do it sees it."""

    def __init__(self, database: Database, name: str, *, node_id: int) -> None:
        """Hold nothing yet."""
        self._database = database
        self._name = name
        self._node_id = node_id

    async def held(self) -> bool:
        """Return whether the work is this node's now; what is nobody's it takes. Raises DatabaseError.

        With SQLite nobody else can be there to do it.
        """
        if self._database.is_sqlite:
            return True
        owner = await self._database.read(holder, self._name)
        if owner is not None:
            return owner == self._node_id
        taken = await self._database.run(take, self._name, node_id=self._node_id)
        if taken:
            log.info("lease.taken", work=self._name, node=self._node_id)
        return taken


def holder(connection: sa.Connection, name: str) -> int | None:
    """Return the node that holds a lease, or None if it has no holder that is alive."""
    theirs = sa.select(lease.c.node_id).where(lease.c.name == name, nodes.standing(lease.c.node_id))
    return connection.execute(theirs).scalar_one_or_none()


def take(connection: sa.Connection, name: str, *, node_id: int) -> bool:
    """Take a lease that nobody holds; return whether this node has it now."""
    ours = sa.select(sa.literal(name), node.c.id).where(node.c.id == node_id, node.c.lost_at.is_(None))
    standing = sa.select(node.c.id).where(node.c.lost_at.is_(None))
    insert = changes.upsert(connection, lease).from_select(["name", "node_id"], ours)
    taken = insert.on_conflict_do_update(
        index_elements=[lease.c.name],
        set_={"node_id": insert.excluded.node_id},
        where=(lease.c.node_id == node_id) | lease.c.node_id.not_in(standing),
    )
    return connection.execute(taken.returning(lease.c.node_id)).scalar_one_or_none() == node_id

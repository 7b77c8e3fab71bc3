"""The reckoning after a kill: what the relay wrote down, against what the database says of each delivery."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mailbound import lifecycle, tokens
from mailbound.database import tally, token_keys
from mailbound.database.engine import Database
from mailbound.database.tables import activity, delivery, recipient, run
from mailbound.lifecycle import DeliveryState, RunState

_DOUBTFUL = {DeliveryState.SENDING, DeliveryState.UNKNOWN, DeliveryState.QUEUED, DeliveryState.CLAIMED}


@dataclass(frozen=True, slots=True)
class Doubt:
    """An attempt of which the database does not know how it ended."""

    delivery_id: int
    attempt: int


class Ledger:
    """What the relay wrote down: how often it took which delivery, told by the signature in its Message-ID."""

    def __init__(self, path: Path, keys: dict[int, tokens.Key]) -> None:
        """Read nothing yet."""
        self.times: Counter[int] = Counter()
        self.addresses: dict[int, str] = {}
        self.forged: list[str] = []  # what none of `keys` signed, or went to two addresses
        self._path = path
        self._keys = keys
        self._offset = 0

    def read(self) -> None:
        """Take up what came since the last time."""
        with self._path.open() as file:
            file.seek(self._offset)
            lines = file.read().splitlines()
            self._offset = file.tell()
        for line in lines:
            message_id, address = line.split(" ")
            token = tokens.verify(message_id.partition("@")[0], self._keys, now=datetime.now(UTC))
            if token is None or self.addresses.setdefault(token.subject, address) != address:
                self.forged.append(line)
            else:
                self.times[token.subject] += 1


class Reckoning:
    """Holds a database to its relay's ledger, over any number of kills. `faults` has a line for each broken promise."""

    def __init__(self, database: Database, ledger: Path, *, connections: int) -> None:
        """Begin; no connection but those of the daemon may have sent anything to the relay."""
        self.faults: list[str] = []
        self.most_in_doubt = 0
        self.bound = 0  # how many messages may have been doubled: one for each connection and kill
        self._database = database
        with database.look() as connection:
            keys = token_keys.verifying(connection)
        self._ledger = Ledger(ledger, keys)
        self._connections = connections
        self._doubts: set[Doubt] = set()
        self._doubted: Counter[int] = Counter()  # in how many attempts, by delivery
        self._sent: set[int] = set()  # runs that were held to the ledger after their end
        self._kills = 0
        self._rows: dict[int, Any] = {}  # the last that was seen of each delivery

    @property
    def letters(self) -> int:
        """Return how many messages the relay took."""
        return sum(self._ledger.times.values())

    @property
    def doubled(self) -> int:
        """Return how many of them it had taken before."""
        return self.letters - len(self._ledger.times)

    @property
    def in_doubt(self) -> int:
        """Return how many attempts were in doubt after a kill."""
        return len(self._doubts)

    def after_kill(self, *, relay_died: bool = False) -> None:
        """Compare while the daemon is dead. If the relay died before it, that too leaves one a connection in doubt."""
        self._kills += 1
        known = len(self._doubts)
        self._look()
        fresh = len(self._doubts) - known
        allowed = self._connections * (2 if relay_died else 1)
        self.bound += allowed
        self.most_in_doubt = max(self.most_in_doubt, fresh)
        if fresh > allowed:
            self.faults.append(f"kill {self._kills}: {fresh} in doubt on {self._connections} connections")

    def at_end(self) -> None:
        """Compare once every run was sent: nobody is lost, nobody got it too often, and the sums are right."""
        self._sent.clear()
        self._look()
        for row in self._rows.values():
            self._check_end(row)
        if self.doubled > self.bound:
            self.faults.append(f"{self.doubled} doubled, at most {self.bound} may be")
        strangers = self._ledger.times.keys() - self._rows.keys()
        self.faults += [f"delivery {number} was sent and is not known" for number in strangers]
        self.faults += [f"the relay took what is not ours: {line}" for line in self._ledger.forged]
        with self._database.look() as connection:
            wrong = tally.differences(connection)
            self.faults += [f"run {number}: {rest} (tallied, counted)" for number, *rest in wrong]
            if self._database.is_sqlite:
                said = connection.execute(sa.text("PRAGMA integrity_check")).scalars().all()
                self.faults += [] if said == ["ok"] else [f"SQLite: {said}"]
                broken = connection.execute(sa.text("PRAGMA foreign_key_check")).all()
                self.faults += [f"foreign key: {row}" for row in broken]

    def lost(self) -> list[int]:
        """Return the deliveries that the relay never took, other than those that are held and shown."""
        return [
            row.id
            for row in self._rows.values()
            if not self._ledger.times[row.id] and not (row.hold and row.state == DeliveryState.UNKNOWN)
        ]

    def held(self) -> int:
        """Return how many deliveries are held because they are in doubt."""
        return sum(row.state == DeliveryState.UNKNOWN for row in self._rows.values())

    def _look(self) -> None:
        self._ledger.read()
        with self._database.look() as connection:
            ended = set(connection.execute(sa.select(run.c.id).where(run.c.state == RunState.SENT)).scalars())
            rows = connection.execute(_deliveries(but=self._sent)).all()
        for row in rows:
            self._rows[row.id] = row
            doubt = Doubt(row.id, row.attempt)
            if row.attempt and row.state in _DOUBTFUL and doubt not in self._doubts:
                self._doubts.add(doubt)
                self._doubted[row.id] += 1
            self._check(row)
        self._sent |= ended

    def _check(self, row: Any) -> None:
        """Hold one delivery to the ledger: what was accepted was taken; what was taken is accepted or in doubt."""
        times, doubted = self._ledger.times[row.id], self._doubted[row.id]
        accepted = row.state == DeliveryState.ACCEPTED
        what = (
            f"delivery {row.id}, {row.state}, attempt {row.attempt}, taken {times} times, in doubt {doubted}"
        )
        if accepted and not times:
            self.faults.append(f"{what}: the relay knows nothing of it")
        if times > doubted + accepted:
            self.faults.append(f"{what}: the database knows of fewer")
        if row.attempt != doubted + accepted:
            self.faults.append(f"{what}: the attempts are not counted right")
        if row.hold and times > 1:
            self.faults.append(f"{what}: doubled though in doubt is held")
        if times and self._ledger.addresses[row.id] != row.address:
            self.faults.append(f"{what}: it went to {self._ledger.addresses[row.id]}")

    def _check_end(self, row: Any) -> None:
        may_be = {DeliveryState.ACCEPTED, DeliveryState.UNKNOWN} if row.hold else {DeliveryState.ACCEPTED}
        if row.state not in may_be:
            self.faults.append(f"delivery {row.id} ended {row.state}")


def _deliveries(*, but: set[int]) -> sa.Select[Any]:
    return (
        sa.select(
            delivery.c.id,
            delivery.c.state,
            delivery.c.attempt,
            recipient.c.address,
            (activity.c.in_doubt == "hold").label("hold"),
        )
        .join(recipient, recipient.c.id == delivery.c.recipient_id)
        .join(run, run.c.id == delivery.c.run_id)
        .join(activity, activity.c.id == run.c.activity_id)
        .where(run.c.id.not_in(but))
    )


def unsettled(database: Database) -> int:
    """Return how many deliveries are still to be sent, where every activity is for everybody."""
    activities = sa.select(sa.func.count()).select_from(activity).scalar_subquery()
    people = sa.select(sa.func.count()).select_from(recipient).scalar_subquery()
    settled = (
        sa.select(sa.func.count()).where(delivery.c.state.not_in(tuple(lifecycle.OPEN))).scalar_subquery()
    )
    with database.look() as connection:
        return int(connection.execute(sa.select(activities * people - settled)).scalar_one())

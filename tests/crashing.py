"""The proof by killing: a daemon is killed again and again while it sends, and held to what its relay wrote down.

    python tests/crashing.py --kills 500 --database both --policy both

Each kill is one of `killing.Killer`, chosen at random. Between two kills nothing is mended: the next start finds what
the last kill left. After each, what the relay took must be accepted or in doubt, and no more be in doubt than there
were connections. In the end nobody is lost; who is doubled was in doubt; with `hold` nobody is doubled.

It prints its counts as it goes, and in the end as JSON; the exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import reckoning
from box import Box
from killing import Killer
from mailbound.database import tables, token_keys
from mailbound.lifecycle import RunState
from reckoning import Reckoning
from relay_process import RelayProcess
from servers.postgres import Postgres

CONNECTIONS = 8
_PEOPLE = 400
_LOW = 200  # with fewer left to send, the next activity is created
_KILLS_PER_DATABASE = 100
_FAULTS_SHOWN = 20
_POLICIES = {"resend": ["resend"], "hold": ["hold"], "both": ["resend", "hold"]}


class Campaign:
    """A daemon, its relay, and how often it is killed."""

    def __init__(self, box: Box, relay: RelayProcess, dice: random.Random, *, policy: str = "both") -> None:
        """Make a database with people; `policy` is what becomes of what is in doubt, by activity."""
        self._box = box
        self._dice = dice
        self._policies = _POLICIES[policy]
        self._activities = 0
        box.populate(
            {f"person-{number}": f"person-{number}@domain-{number % 7}.test" for number in range(_PEOPLE)}
        )
        with box.database.begin() as connection:
            token_keys.signing(connection, now=datetime.now(UTC))
        self.killer = Killer(box, relay, dice)
        self.reckoning = Reckoning(box.database, relay.ledger, connections=CONNECTIONS)

    def kill(self) -> str:
        """Kill the daemon once, compare, and return how it was killed."""
        self._top_up()
        self._box.take_over()
        kill = self.killer.kill()
        self._box.bury()
        self.reckoning.after_kill(relay_died=kill.relay_died)
        return kill.how

    def finish(self) -> None:
        """Let the daemon take over what the last kill left and bring everything to its end, and compare."""
        self._box.start()
        self._box.wait(self._is_done, "every run to be sent")
        assert self._box.stop() == 0
        self.reckoning.at_end()
        self._box.cli("doctor")

    def counts(self) -> dict[str, Any]:
        """Return what happened so far; who is still to be sent to counts as lost until the end."""
        reckoned = self.reckoning
        return {
            "kills": self.killer.ways.total(),
            "letters": reckoned.letters,
            "in_doubt": reckoned.in_doubt,
            "most_in_doubt_at_once": reckoned.most_in_doubt,
            "doubled": reckoned.doubled,
            "bound": reckoned.bound,
            "lost": len(reckoned.lost()),
            "held": reckoned.held(),
            "faults": len(reckoned.faults),
        }

    def _top_up(self) -> None:
        if reckoning.unsettled(self._box.database) < _LOW:
            self._activities += 1
            name = f"activity-{self._activities}"
            self._box.schedule(name, in_doubt=self._dice.choice(self._policies))

    def _is_done(self) -> bool:
        sent = sa.select(sa.func.count()).where(tables.run.c.state == RunState.SENT)
        return bool(self._box.rows(sent)[0][0] == self._activities)


@contextlib.contextmanager
def campaign(folder: Path, url: str, *, seed: int, policy: str = "both") -> Iterator[Campaign]:
    """Give a campaign in a new database at `url`, "" being one of SQLite in `folder`."""
    folder.mkdir(exist_ok=True)
    with (
        RelayProcess(folder / "ledger") as relay,
        Box(folder, url=url, connections=CONNECTIONS, **relay.settings) as box,
    ):
        yield Campaign(box, relay, random.Random(seed), policy=policy)


@contextlib.contextmanager
def _urls(databases: list[str]) -> Iterator[dict[str, Callable[[], AbstractContextManager[str]]]]:
    """Give, for each kind of database, what makes a new one and gives its URL."""
    with contextlib.ExitStack() as stack:
        makers: dict[str, Callable[[], AbstractContextManager[str]]] = {}
        if "sqlite" in databases:
            makers["sqlite"] = lambda: contextlib.nullcontext("")
        if "postgresql" in databases:
            makers["postgresql"] = stack.enter_context(Postgres()).database
        yield makers


def main() -> int:
    """Kill as often as told."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="how many, on each database")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--policy", choices=list(_POLICIES), default="both")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    databases = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    total: dict[str, Any] = {"seed": options.seed, "connections": CONNECTIONS}
    with _urls(databases) as makers, tempfile.TemporaryDirectory() as name:
        for database, make in makers.items():
            total[database] = _run(Path(name) / database, make, options)
    print(json.dumps(total, indent=2))
    return int(any(total[database]["faults"] for database in databases))


def _run(folder: Path, make: Callable[[], AbstractContextManager[str]], options: argparse.Namespace) -> Any:
    """Kill on one kind of database, a new one from time to time, and return the counts of all."""
    begun = time.monotonic()
    folder.mkdir()
    total: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    most = 0
    for number, first in enumerate(range(0, options.kills, _KILLS_PER_DATABASE)):
        kills = min(_KILLS_PER_DATABASE, options.kills - first)
        with (
            make() as url,
            campaign(folder / str(number), url, seed=options.seed + first, policy=options.policy) as held,
        ):
            for count in range(kills):
                how = held.kill()
                counts = " ".join(f"{name}={value}" for name, value in held.counts().items())
                print(f"{folder.name} {first + count + 1}: {how}: {counts}", flush=True)
            held.finish()
            final = held.counts()
            most = max(most, final.pop("most_in_doubt_at_once"))
            total.update(final)
            ways.update(held.killer.ways)
            for fault in held.reckoning.faults[:_FAULTS_SHOWN]:
                print(f"FAULT {fault}", flush=True)
    seconds = round(time.monotonic() - begun, 1)
    return {**total, "most_in_doubt_at_once": most, "seconds": seconds, "ways": dict(ways)}


if __name__ == "__main__":
    sys.exit(main())

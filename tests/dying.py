"""One round of a daemon's inbound work in a process of its own, which is killed where it is told: nothing is closed.

The processes are forked from one that has imported everything already, so each costs some hundredths of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Self

import inbox
from mailbound import classify, config, mailbox, reading
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.inbound import Reader, Recorder, recorder
from mailbound.inbound.reader import Keys, Mail, Outcome, said
from mailbound.mailbox import pop3
from world import NODE, NOW


@dataclass(frozen=True, slots=True)
class Death:
    """When it dies: at which of its commits, shortly before it or after."""

    commit: int
    before: bool


class FrailDatabase(Database):
    """A database whose process dies at one of its commits."""

    death: Death | None = None
    _commits = 0

    async def run(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a transaction, and die if it is time."""
        self._commits += 1
        due = self.death is not None and self.death.commit == self._commits

        def doomed(connection: Any, *args: Any, **kwargs: Any) -> Any:
            result = function(connection, *args, **kwargs)
            if due and self.death is not None and self.death.before:
                _die()
            return result

        result = await super().run(doomed, *args, **kwargs)
        if due:
            _die()
        return result


class Here(Reader):
    """Reads in this process: one that is to die takes nobody with it, and none has to be started."""

    async def read_all(self, mails: Sequence[Mail], keys: Keys) -> list[Outcome]:
        """Return what each mail says."""
        return list(said(reading.read, mails, keys))


def open_mailbox(port: int) -> Callable[[], Any]:
    """Return what opens a session with a scripted server."""

    async def opened() -> mailbox.Mailbox:
        return await pop3.open(
            host="127.0.0.1", port=port, tls="insecure", username="bounces", password="secret"
        )

    return opened


def recorder_of(database: Database, reader: Reader) -> Recorder:
    """Return what reads mail with the default settings."""
    parts = recorder.Parts(
        database=database,
        reader=reader,
        limits=config.Policy(),
        keep_for=timedelta(days=90),
        lease=Lease(database, "reading", node_id=NODE),
        clock=lambda: NOW,
    )
    return Recorder(parts)


class Nursery:
    """Forks one process after the other. A context manager."""

    def __enter__(self) -> Self:
        """Start the process that they are forked from."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._pipe.close()
        self._process.join()

    def start(self, work: str, url: str, death: Death | None, **more: Any) -> int:
        """Start a process that does some `work` once, and return its id."""
        self._pipe.send((work, url, death, more))
        return int(self._pipe.recv())

    async def ended(self) -> int:
        """Wait for the end of the last process, and return its exit status: 0 if it lived to the end of its work."""
        return int(await asyncio.to_thread(self._pipe.recv))


def _serve(pipe: Connection) -> None:
    classify.rules()
    with contextlib.suppress(EOFError):
        while True:
            work, url, death, more = pipe.recv()
            pid = os.fork()
            if not pid:
                _live(work, url, death, more)
            pipe.send(pid)
            pipe.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _live(work: str, url: str, death: Death | None, more: dict[str, Any]) -> NoReturn:
    status = 1
    try:
        database = FrailDatabase(url, checkpoints=True)
        database.death = death
        asyncio.run({"fetch": _fetch, "record": _record}[work](database, **more))
        database.close()
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)  # it must not go on as the one that it was forked from


async def _fetch(database: Database, *, port: int, delete: bool) -> None:
    await inbox.fetcher_of(database, open_mailbox(port), delete=delete).fetch()


async def _record(database: Database) -> None:
    await recorder_of(database, Here()).record()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

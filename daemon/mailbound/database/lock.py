"""The lock that keeps a second daemon from the same SQLite file; it is gone with the process that held it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from mailbound.database import engine
from mailbound.database.engine import Database
from mailbound.errors import DatabaseError


@contextlib.contextmanager
def alone(database: Database) -> Iterator[None]:
    """Be the only daemon on a SQLite file. Raises DatabaseError if there is another; PostgreSQL bears many."""
    if database.path is None:
        yield
        return
    path = Path(f"{database.path}.lock")
    with contextlib.ExitStack() as held:
        try:
            engine.create(str(path))
            fcntl.flock(held.enter_context(path.open("r+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseError(f"another daemon works on {database.path}; several need PostgreSQL") from None
        except OSError as error:
            raise DatabaseError(f"database: {path}: {error.strerror}") from None
        yield

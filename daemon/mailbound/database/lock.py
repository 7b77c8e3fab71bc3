"""The lock that keeps a second daemon from the same SQLite file; it is gone with the process that held it."""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Iterator
from pathlib import Path

from mailbound.database import engine
from mailbound.database.engine import Database
from mailbound.errors import DatabaseError

_MOUNTS = Path("/proc/self/mountinfo")
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"})
"""On these a lock or the memory that a write-ahead log shares may be known to one host alone, which ruins a file."""


@contextlib.contextmanager
def alone(database: Database) -> Iterator[None]:
    """Be the only daemon on a SQLite file; PostgreSQL bears many.

    Raises DatabaseError if there is another, or if the file lies where nobody could know.
    """
    if database.path is None:
        yield
        return
    kind = _file_system(database.path)
    if kind in _REMOTE:
        raise DatabaseError(
            f"database: {database.path} lies on {kind}, which SQLite cannot trust; use a local disk, or PostgreSQL"
        )
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


def _file_system(path: Path) -> str:
    """Return what kind of file system a file lies on, "" if that is not known."""
    folders = {path.resolve(), *path.resolve().parents}
    found, depth = "", 0
    with contextlib.suppress(OSError):
        for line in _MOUNTS.read_text().splitlines():
            # 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda1 rw
            place, _, kind = line.partition(" - ")
            point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place.split()[4]))
            if point in folders and len(point.parts) >= depth:  # of two at one place the later one is seen
                found, depth = kind.split()[0], len(point.parts)
    return found

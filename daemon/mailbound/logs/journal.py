"""The native protocol of the systemd journal: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ .

An entry is one datagram of `FIELD=value` lines; a value with a newline in it is written as the field's name,
a newline, its length in 64 bits little-endian, the value and a newline. So no value can begin another field.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from structlog.typing import EventDict

from mailbound.logs.rendering import printable
from mailbound.logs.sink import Write

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "mailbound"

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_OURS = frozenset({"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "EVENT", "MESSAGE_ID"})
_NOT_FIELDS = frozenset({"level", "timestamp", "event"})  # the journal has a time of its own


def listens(environment: Mapping[str, str] = os.environ, descriptor: int | None = None) -> bool:
    """Return whether standard error leads to the journal: `$JOURNAL_STREAM` names its device and inode."""
    try:
        status = os.fstat(sys.stderr.fileno() if descriptor is None else descriptor)
    except (OSError, ValueError, AttributeError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def entry(record: EventDict) -> bytes:
    """Return `record` as a journal entry: MESSAGE to read, EVENT and each field in capitals to search by."""
    fields = {key: _text(value) for key, value in record.items() if key not in _NOT_FIELDS}
    event = _text(record.get("event", ""))
    words = [f"{key}={_word(value)}" for key, value in fields.items() if key != "exception"]
    return b"".join(
        [
            _field("MESSAGE", " ".join([printable(event), *words])),
            _field("PRIORITY", str(_PRIORITIES.get(str(record.get("level")), 6))),
            _field("SYSLOG_IDENTIFIER", IDENTIFIER),
            _field("EVENT", event),
            *(_field(_name(key), value) for key, value in fields.items()),
        ]
    )


def to_socket(path: Path) -> Write:
    """Return what sends entries to the journal at `path`, each in a datagram of its own."""

    def write(batch: Sequence[bytes]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            for content in batch:
                _send(connection, content, path)

    return write


def _send(connection: socket.socket, content: bytes, path: Path) -> None:
    try:
        connection.sendto(content, str(path))
    except OSError as error:
        if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
            raise
        _send_large(connection, content, path)


def _send_large(connection: socket.socket, content: bytes, path: Path) -> None:
    """Send an entry that no datagram holds: as a sealed file in memory, handed over by its descriptor."""
    descriptor = os.memfd_create("mailbound-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
        connection.sendmsg([b""], [rights], 0, str(path))


def _field(name: str, value: str) -> bytes:
    octets = value.encode(errors="backslashreplace")
    if b"\n" not in octets:
        return name.encode() + b"=" + octets + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(octets)) + octets + b"\n"


def _name(key: str) -> str:
    """Return the field for `key`: capitals, digits, underscores; a leading `_` is the journal's own."""
    name = re.sub(r"[^A-Z0-9_]", "_", key.upper()).lstrip("_0123456789")[:60] or "FIELD"
    return f"{name}_" if name in _OURS else name


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _word(value: str) -> str:
    return printable(value) if value and not re.search(r'[\s"=]', value) else json.dumps(value)

"""Where records go: a bounded queue and a thread that writes it out, so that no logger waits for a reader."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Any, TextIO

LIMIT = 4 * 2**20
"""How many octets may wait to be written; what comes on top is dropped and counted."""

LINGER_SECONDS = 0.02
"""How long the first of a batch waits for others: a thread that wakes for each record is in everyone's way."""

Write = Callable[[Sequence[bytes]], None]


class Sink:
    """Takes rendered records and never blocks."""

    def __init__(self, write: Write, *, told: Callable[[int], bytes]) -> None:
        """Write with `write` on a thread; `told` renders how many records were dropped."""
        self.dropped = 0
        self._write = write
        self._told = told
        self._told_of = 0
        self._waiting: list[bytes] = []
        self._octets = 0
        self._idle = True
        self._closed = False
        self._hurried = False  # someone waits in `flush`
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, *records: bytes) -> None:
        """Queue records, or drop and count those that come when too much waits already."""
        with self._changed:
            was_empty = not self._waiting
            for record in records:
                if self._closed or self._octets + len(record) > LIMIT:
                    self.dropped += 1
                else:
                    self._waiting.append(record)
                    self._octets += len(record)
            if was_empty and self._waiting:
                self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until all that was queued is written, but no longer than `seconds`."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle and not self._waiting, seconds)

    def close(self) -> None:
        """Take no more, and end the thread once what is queued is written. A reader is hardly waited for."""
        self.flush(0.1)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._changed.wait_for(lambda: self._hurried or self._closed, LINGER_SECONDS)
                self._hurried = False
                batch, self._waiting, self._octets, self._idle = self._waiting, [], 0, False
                lost = self.dropped - self._told_of
            if lost:
                batch.append(self._told(lost))
            if self._written(batch):
                self._told_of += lost

    def _written(self, batch: list[bytes]) -> bool:
        try:
            self._write(batch)
        except (OSError, ValueError):  # closed, full, gone; ValueError is Python's word for a closed file
            with self._changed:
                self.dropped += len(batch)
            return False
        return True


def to_stream(stream: TextIO) -> Write:
    """Return what writes records to `stream`; past its buffer if it is a file, so no line stays there."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return lambda batch: _to_text(stream, batch)
    return lambda batch: _to_descriptor(descriptor, b"".join(batch))


def _to_text(stream: Any, batch: Sequence[bytes]) -> None:
    stream.write(b"".join(batch).decode())
    stream.flush()


def _to_descriptor(descriptor: int, octets: bytes) -> None:
    while octets:
        try:
            octets = octets[os.write(descriptor, octets) :]
        except BlockingIOError:  # whoever shares this terminal or pipe made it so
            select.select([], [descriptor], [], 1)

"""The relays that the measurements send to, each in a process of its own."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Self

import sink
from servers import need, processes


class Sink:
    """A sink in a process of its own; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Keep the tally in `folder`."""
        self._folder = folder
        self.port = 0

    def __enter__(self) -> Self:
        """Start, and return when it listens."""
        self.port = processes.free_ports(["sink"])["sink"]
        tally = self._folder / "tally"
        tally.write_bytes(bytes(sink.TALLY.size))
        with tally.open("r+b") as file:
            self._tally = mmap.mmap(file.fileno(), sink.TALLY.size)
        self._start([sys.executable, str(sink.__file__), str(self.port), str(tally)])
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        processes.stop(self.process)

    @property
    def count(self) -> int:
        """Return how many messages were accepted."""
        return int(sink.TALLY.unpack_from(self._tally)[0])

    @property
    def last(self) -> float:
        """Return when the last message was accepted, by the monotonic clock."""
        return float(sink.TALLY.unpack_from(self._tally)[2])

    @property
    def first(self) -> float:
        """Return when the first message was accepted, by the monotonic clock."""
        return float(sink.TALLY.unpack_from(self._tally)[1])

    @property
    def rate(self) -> float:
        """Return messages a second, from the first that was accepted to the last."""
        return (self.count - 1) / (self.last - self.first)

    def _start(self, command: list[str]) -> None:
        self.process: subprocess.Popen[bytes] = processes.start(command, log=self._folder / "sink.log")
        processes.await_port(self.port, self.process, log=self._folder / "sink.log")


class PostfixSink(Sink):
    """Postfix's smtp-sink. It keeps no tally."""

    def __enter__(self) -> Self:
        """Start, and return when it listens."""
        self.port = processes.free_ports(["sink"])["sink"]
        self._start([need("smtp-sink"), "-u", "nobody", f"127.0.0.1:{self.port}", "1000"])
        return self

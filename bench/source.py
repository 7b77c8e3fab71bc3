"""Postfix's smtp-source, the reference: it sends one ready-made message again and again, and keeps no database."""

from __future__ import annotations

import resource
import subprocess
import time
from dataclasses import dataclass

from servers import need


@dataclass(frozen=True)
class Pushed:
    """What smtp-source did."""

    seconds: float
    cpu_seconds: float


def push(port: int, *, messages: int, connections: int, size: int) -> Pushed:
    """Send so many messages of `size` octets through connections that are kept."""
    counts = ["-m", str(messages), "-s", str(connections), "-l", str(size)]
    envelope = ["-f", "bounces@sender.test", "-t", "person@domain.test"]
    before, begun = _children_cpu_seconds(), time.monotonic()
    subprocess.run([need("smtp-source"), "-d", *counts, *envelope, f"127.0.0.1:{port}"], check=True)
    return Pushed(time.monotonic() - begun, _children_cpu_seconds() - before)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

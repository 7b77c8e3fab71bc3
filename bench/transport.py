"""The transport alone: ready-made letters of 5 kB, ours against smtp-source's, near and through a long line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import figures
import source
import stage
from figures import Figure, Scale
from relays import Sink
from servers import processes

_OCTETS = 5_000
_CONNECTIONS = 10
ROUND_TRIP_MS = 4.0
_FAR_SHARE = 10
"""A long line gets only this part of the messages: each one waits."""


@dataclass(frozen=True)
class Pushed:
    """What one side did in one round."""

    rate: float
    cpu_ms: float


def measure(scale: Scale) -> Iterator[Figure]:
    """Return the rates near and far, and the processor time."""
    near = _versus(scale.messages, far=False, rounds=scale.rounds)
    yield _rate("transport, 5 kB, 10 connections / smtp-source", near, 1.3)
    far = _versus(max(scale.messages // _FAR_SHARE, _CONNECTIONS), far=True, rounds=scale.rounds)
    yield _rate("transport, 5 kB, 10 connections, 4 ms round trip / smtp-source", far, 3)


def _versus(messages: int, *, far: bool, rounds: int) -> dict[str, list[Pushed]]:
    contestants = {
        "ours": partial(_round, _ours, messages=messages, far=far),
        "theirs": partial(_round, _theirs, messages=messages, far=far),
    }
    return figures.take_turns(contestants, rounds)


def _rate(name: str, seen: dict[str, list[Pushed]], goal: float) -> Figure:
    ours, theirs = ([each.rate for each in seen[side]] for side in ("ours", "theirs"))
    beside = figures.medians(
        rate=ours,
        smtp_source_rate=theirs,
        cpu_ms=(each.cpu_ms for each in seen["ours"]),
        smtp_source_cpu_ms=(each.cpu_ms for each in seen["theirs"]),
    )
    return Figure(name, figures.ratios(ours, theirs), goal, beside=beside)


def _round(push: partial[float], *, messages: int, far: bool) -> Pushed:
    with stage.folder() as folder, Sink(folder) as sink:
        far_away = line(sink.port, folder) if far else None
        try:
            cpu_seconds = push(far_away[0] if far_away else sink.port, messages)
        finally:
            if far_away:
                processes.stop(far_away[1])
        assert sink.count == messages, f"the sink took {sink.count}, not {messages}"
        return Pushed(sink.rate, cpu_seconds / messages * 1e3)


def line(target: int, folder: Path) -> tuple[int, subprocess.Popen[bytes]]:
    """Return the port of a line that adds the round trip, and its process."""
    port = processes.free_ports(["line"])["line"]
    program = str(Path(__file__).with_name("distance.py"))
    command = [sys.executable, program, str(port), str(target), str(ROUND_TRIP_MS / 2)]
    log = folder / "line.log"
    process = processes.start(command, log=log)
    processes.await_port(port, process, log=log)
    return port, process


def _ours(port: int, messages: int) -> float:
    program = str(Path(__file__).with_name("pushing.py"))
    numbers = map(str, (port, messages, _CONNECTIONS, _OCTETS))
    done = subprocess.run([sys.executable, program, *numbers], check=True, capture_output=True)
    return float(json.loads(done.stdout)["cpu_seconds"])


def _theirs(port: int, messages: int) -> float:
    return source.push(port, messages=messages, connections=_CONNECTIONS, size=_OCTETS).cpu_seconds

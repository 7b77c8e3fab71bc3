"""The processor of the daemon's threads, seen from outside: what the kernel says of a process that keeps to one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from box import Box

_ALLOWED = os.sched_getaffinity(0)
_several = pytest.mark.skipif(len(_ALLOWED) < 2, reason="there is one processor")

_PRELUDE = """
import asyncio, json, os, subprocess, sys, threading, time
from datetime import UTC, datetime
from mailbound.inbound import Reader
from mailbound import packing
from mailbound.inbound.findings import Arrived
from mailbound.processor import Processor

def where():
    return [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]

def spin():
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        pass

ALLOWED = os.sched_getaffinity(0)
waiting = threading.Event()
before = threading.Thread(target=waiting.wait, daemon=True)
before.start()
"""

_READ = """
processor = Processor()
reader = Reader()
mail = packing.alone(b"Subject: hello\\r\\n\\r\\n"), Arrived(None, 1, datetime.now(UTC))
asyncio.run(reader.read_all([mail], {}))
print(json.dumps({"ours": where(), "reader": sorted(os.sched_getaffinity(reader._worker.process.pid))}))
reader.close()
"""

_CROWDED = """
processor = Processor()
first = where()
def keep():
    os.sched_setaffinity(0, first[0])
hog = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=keep)
for _ in range(600):
    spin()
    processor.look()
    if where() != first:
        break
hog.kill()
print(json.dumps({"first": first, "then": where()}))
"""


_TWO = """
first = Processor()
one = where()
second = subprocess.run(
    [sys.executable, "-c", "import os; from mailbound.processor import Processor; p = Processor(); "
     "print(*os.sched_getaffinity(0))"],
    check=True, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, ALLOWED),
)
print(json.dumps({"first": one, "second": list(map(int, second.stdout.split()))}))
"""


def _run(program: str, processors: Iterable[int] = _ALLOWED) -> Any:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", _PRELUDE + program],  # no other daemon is there
        check=True,
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
        timeout=120,
    )
    return json.loads(done.stdout)


@_several
def test_threads_share_a_processor_and_a_process_that_reads_mail_runs_anywhere() -> None:
    told = _run(_READ)
    assert len(told["ours"]) > 1
    assert all(processors == told["ours"][0] and len(processors) == 1 for processors in told["ours"])
    assert told["reader"] == sorted(_ALLOWED)


@_several
def test_a_processor_that_somebody_else_crowds_is_left_by_all_threads() -> None:
    told = _run(_CROWDED)
    assert told["first"][0] != told["then"][0]
    assert all(processors == told["then"][0] for processors in told["then"])


@_several
def test_two_daemons_of_a_host_take_different_processors() -> None:
    for _ in range(5):
        told = _run(_TWO)
        assert [told["second"]] != told["first"][:1]
        assert len(told["second"]) == 1


def test_where_there_is_one_processor_it_is_kept() -> None:
    told = _run(_CROWDED.replace("600", "5"), [min(_ALLOWED)])
    assert told["first"] == told["then"] == [[min(_ALLOWED)]] * 2


@_several
def test_the_daemon_keeps_to_one_processor(tmp_path: Path) -> None:
    with Box(tmp_path) as box:
        box.start()
        assert box.process is not None
        tasks = Path(f"/proc/{box.process.pid}/task").iterdir()
        where = [os.sched_getaffinity(int(task.name)) for task in tasks]
        assert len(where) > 1
        assert all(processors == where[0] and len(processors) == 1 for processors in where)

"""What reading a mail may cost in a command's own process."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import command
from mailbound import bounds, cli
from mailbound.bounds import Unreadable

ELSEWHERE = Path("/nowhere/config.toml")


def test_what_takes_too_long_is_ended_whatever_catches_exceptions() -> None:
    said = r"^a\.eml is too much to read: it takes longer than 0\.05 s$"
    with pytest.raises(Unreadable, match=said), bounds.kept("a.eml", seconds=0.05):
        _try_for_ever()


def _try_for_ever() -> None:
    while True:
        try:
            re.match(r"(a+)+b", "a" * 40)  # this would take hours
        except Exception:  # noqa: BLE001 - the detectors of others are called like this
            continue


def test_what_takes_too_much_memory_is_ended() -> None:
    with pytest.raises(Unreadable, match="too much to read: MemoryError"), bounds.kept("a.eml"):
        bytearray(2 * bounds.MEMORY_OCTETS)


def _settings() -> tuple[object, ...]:
    return resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)


@pytest.mark.parametrize("fault", [None, MemoryError, KeyError])
def test_afterwards_everything_is_as_it_was(fault: type[Exception] | None) -> None:
    before = _settings()
    is_limited = signal.getitimer(signal.ITIMER_REAL)[0] > 0
    try:
        with bounds.kept("a.eml"):
            assert _settings()[0] != before[0]
            assert _settings()[1] != before[1]
            if fault:
                raise fault
    except (Unreadable, KeyError):
        pass
    assert _settings() == before
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) is is_limited, (
        "a limit of the test's own holds again"
    )


_IN_LITTLE_MEMORY = """
import os, resource, sys
from mailbound import cli

def explain(path):
    sys.argv = ["mailbound", "--config", "/nowhere/config.toml", "bounce", "explain", path]
    try:
        cli.main()
    except SystemExit as end:
        return end.code

small, nested = sys.argv[1:]
explain(small)  # so that everything is loaded
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + (48 << 20),) * 2)
sys.exit(explain(nested))
"""


def test_a_mail_that_is_too_much_is_told_on_one_line(tmp_path: Path) -> None:
    small, nested = tmp_path / "small.eml", tmp_path / "nested.eml"
    small.write_bytes(b"From: a@x.example\n\nHello\n")
    levels = (b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(99))
    nested.write_bytes(b"From: a@x.example\n" + b"".join(levels) + bytes(7 << 20))  # each level is a copy
    words = [sys.executable, "-c", _IN_LITTLE_MEMORY, str(small), str(nested)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.stderr == f"mailbound: {nested} is too much to read: MemoryError\n"
    assert ended.returncode == cli.INPUT_FAULT


def test_of_many_mails_the_others_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("disk.img", "mail.eml")]
    paths[0].touch()
    os.truncate(paths[0], 1 << 40)
    paths[1].write_bytes(b"From: a@x.example\n\nHello\n")
    done = command.run("bounce", "read", stdin="\n".join(map(str, paths)).encode())
    first, second = map(json.loads, done.out.splitlines())
    assert first["error"] == f"{paths[0]} is no mail: it is larger than 100 MiB"
    assert second["kind"] == "ordinary"


def test_a_file_of_any_size_is_no_mail(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, 1 << 40)
    said = command.refused("bounce", "explain", str(path), config=ELSEWHERE)
    assert said == f"{path} is no mail: it is larger than 100 MiB"

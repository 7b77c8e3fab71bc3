"""What systemd is told, by a socket that plays systemd's."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailbound.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """Return the manager's socket, which NOTIFY_SOCKET names in both ways that systemd has."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name.replace("@", "\0", 1))
        channel.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield channel


def _hear(manager: socket.socket) -> dict[str, str]:
    said = manager.recv(4096).decode()
    return dict(line.split("=", 1) for line in said.splitlines())


def test_each_message_is_one_datagram(manager: socket.socket) -> None:
    notifier = Notifier()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready("2 stores")
    notifier.status("sending")
    notifier.alive()
    notifier.reloading()
    notifier.stopping(12.5)
    assert _hear(manager) == {"READY": "1", "STATUS": "2 stores"}
    assert _hear(manager) == {"STATUS": "sending"}
    assert _hear(manager) == {"WATCHDOG": "1"}
    reloading = _hear(manager)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert reloading.pop("RELOADING") == "1"
    assert before <= int(reloading.pop("MONOTONIC_USEC")) <= after
    assert reloading == {}
    assert _hear(manager) == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "12500000"}


def test_children_inherit_nothing_of_it(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    Notifier()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        pytest.param("30000000", "ours", 30.0, id="ours"),
        pytest.param("30000000", None, 30.0, id="no pid is anybody's"),
        pytest.param("30000000", "1", 0.0, id="another process is watched"),
        pytest.param(None, None, 0.0, id="no watchdog"),
        pytest.param("", None, 0.0, id="empty"),
    ],
)
def test_the_watchdog_counts_only_for_us(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, pid: str | None, seconds: float
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "ours" else value)
    assert Notifier().watchdog_seconds == seconds


def test_without_systemd_nothing_is_said(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready("nobody listens")
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1)


def test_a_manager_that_is_gone_does_no_harm(manager: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier()
    manager.close()
    notifier.ready("nobody listens any more")
    assert notifier.watchdog_seconds == 0.0

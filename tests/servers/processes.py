"""Server processes: started in a session of their own, awaited by their port, stopped with all they begot."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from servers import need

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# Below the range that the kernel hands out to clients, so nothing takes them; no two workers choose the same.
_PORTS = range(20000 + _WORKER, 32000, _WORKERS)
_ANSWER_WITHIN = 20.0


class NotStartedError(Exception):
    """A server ended, or did not listen in time; the text ends with its last words."""


def free_ports(names: list[str]) -> dict[str, int]:
    """Return a loopback port for each name that nothing listens on now."""
    free = (port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(port))
    return dict(zip(names, free, strict=False))


def start(command: list[str], *, log: Path, user: str | None = None) -> subprocess.Popen[bytes]:
    """Start a server that ends with us, however we end; its output goes to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [need("setpriv"), "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )


def await_ready(ready: Callable[[], bool], process: subprocess.Popen[bytes], *, log: Path) -> None:
    """Return when `ready` says so. Raises NotStartedError if `process` ends first or takes too long."""
    deadline = time.monotonic() + _ANSWER_WITHIN
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise NotStartedError(f"{process.args} is not ready\n{said}")
        time.sleep(0.01)


def await_port(port: int, process: subprocess.Popen[bytes], *, log: Path) -> None:
    """Return when `process` listens on `port`. Raises NotStartedError as `await_ready` does."""
    await_ready(lambda: not _is_free(port), process, log=log)


def stop(
    process: subprocess.Popen[bytes], by: signal.Signals = signal.SIGTERM, *, grace: float = 1.5
) -> None:
    """End `process` with `by`, and after `grace` seconds everything that is left of its session."""
    process.send_signal(by)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0

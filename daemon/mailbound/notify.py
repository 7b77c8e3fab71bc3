"""What systemd is told (sd_notify(3)): ready, alive, reloading, stopping. Without systemd it does nothing."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Speaks to the manager's socket, which children do not inherit."""

    def __init__(self) -> None:
        """Take the socket and the watchdog's interval from the environment."""
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = int(os.environ.pop("WATCHDOG_USEC", "0") or 0)
        ours = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = microseconds / 1e6 if ours else 0.0

    def ready(self, status: str) -> None:
        """Say that the service is up, or back from a reload; `status` is one line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Say in one line what goes on."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that a reload began; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float) -> None:
        """Say that the service stops, and may take so long."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, message: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto(message.encode(), address)
            except OSError:  # a manager that is gone needs no notice
                return

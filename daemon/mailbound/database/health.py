"""Whether the database does as it is told, for the log: when it fails, once a minute, and when it is well again.

Many loops ask the same database; each telling of its own failure would bury what else the log has to say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

_AGAIN_SECONDS = 60.0
_CALM_SECONDS = 2.0
"""How long nothing may have failed before it counts as well: one loop may succeed where another fails."""


class Health:
    """What is known of one database; its threads tell."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin well."""
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._failed_at = 0.0
        self._told_at = 0.0

    def failed(self, why: str) -> None:
        """Hear that a transaction failed, or is tried for a while already."""
        with self._lock:
            now = self._failed_at = self._clock()
            begun = self._since is None
            if self._since is None:
                self._since = now
            if begun or now - self._told_at >= _AGAIN_SECONDS:
                self._told_at = now
                log.error("database.failed", why=why, down_for=round(now - self._since, 1))

    def wrote(self) -> None:
        """Hear that a transaction was committed."""
        since = self._since
        if since is None:  # nearly always
            return
        with self._lock:
            if self._since == since and self._clock() - self._failed_at >= _CALM_SECONDS:
                log.info("database.recovered", down_for=round(self._failed_at - since, 1))
                self._since = None

"""The circuit breaker of a run: when so many failures blame us that it must not go on. Mass bounces: see `guard`."""

from __future__ import annotations

from mailbound.config import Breaker


def trips(*, blame: int, settled: int, limits: Breaker) -> str | None:
    """Return why a run must halt, or None.

    `blame` counts failures that blame us, `settled` its deliveries that need no other try.
    """
    if blame >= limits.blame_count and blame >= limits.blame_share * settled:
        return f"{blame} failures blame us, while {settled} deliveries were settled"
    return None

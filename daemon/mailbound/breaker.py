"""The circuit breaker of a run: when so many failures blame us that it must not go on. Mass bounces: see `guard`."""

from __future__ import annotations

from mailbound.config import Breaker


def trips(*, blame: int, settled: int, limits: Breaker) -> str | None:
    """Return why a run must halt, or None.

    `blame` counts failures that blame us, `settled` the deliveries of the run that were tried.
    """
    if blame >= limits.blame_count and blame >= limits.blame_share * settled:
        return f"{blame} of {settled} deliveries failed with a reply that blames us"
    return None

"""What the configuration makes mailbound do, in words."""

from __future__ import annotations

from mailbound.config.sections import Config


def explain(config: Config) -> str:
    """Return what `config` makes mailbound do."""
    raise NotImplementedError

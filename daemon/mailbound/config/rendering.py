"""The effective configuration as TOML. What it prints can be loaded again; secrets are not in it."""

from __future__ import annotations

from mailbound.config.sections import Config


def show(config: Config) -> str:
    """Return the effective configuration as TOML, secrets masked."""
    raise NotImplementedError

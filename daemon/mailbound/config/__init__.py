"""The configuration: config.toml read once, validated whole, as frozen sections.

    config.load(path)            a Config, or ConfigError with every fault at once
    config.show(config)          the effective configuration as TOML, secrets masked
    config.explain(config)       what it makes mailbound do, in words

Nobody imports a loaded configuration: `service` hands each part its own section.
"""

from mailbound.config.accounts import Account, Inbox, Outbound, Store
from mailbound.config.explaining import explain
from mailbound.config.loading import load
from mailbound.config.rendering import show
from mailbound.config.sections import (
    Breaker,
    Config,
    Database,
    Guard,
    Inbound,
    Log,
    Policy,
    Sending,
    Templates,
    Web,
)

__all__ = [
    "Account",
    "Breaker",
    "Config",
    "Database",
    "Guard",
    "Inbound",
    "Inbox",
    "Log",
    "Outbound",
    "Policy",
    "Sending",
    "Store",
    "Templates",
    "Web",
    "explain",
    "load",
    "show",
]

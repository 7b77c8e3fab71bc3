"""What can go wrong, other than a refusal or a bounce, which are values.

MailboundError
├── ConfigError          the operator must edit config.toml; start-up stops, exit status 78
├── InputError           a command was given something unusable; nothing was changed, exit status 2
├── DatabaseError        the database did not do as told; the transaction is rolled back
│   └── InvalidTransition    a state machine was asked for a step that it does not have
├── DiskFailed           what the database wrote may not be on the disk; nothing may be written before a restart
├── RelayError           the relay cannot be used now; its run waits, no recipient is touched
└── MailboxError         the inbound mailbox cannot be read now; its loop backs off
"""

from __future__ import annotations


class MailboundError(Exception):
    """The root of all of them; its text is one line for the operator."""


class ConfigError(MailboundError):
    """The configuration has faults; `faults` holds one line for each."""

    def __init__(self, faults: list[str]) -> None:
        """Keep all the faults, to be shown together."""
        super().__init__("\n".join(faults))
        self.faults = faults


class InputError(MailboundError):
    """A command was given something unusable."""


class DatabaseError(MailboundError):
    """The database did not do as told."""


class InvalidTransition(DatabaseError):
    """A state machine was asked for a step that it does not have."""


class DiskFailed(MailboundError):
    """The disk did not keep what the database wrote. It is no DatabaseError: nobody may wait for it to pass."""


class RelayError(MailboundError):
    """The relay cannot be used now."""


class MailboxError(MailboundError):
    """The inbound mailbox cannot be read now."""

"""Why there is no session with a relay.

RelayError
└── SessionError         has the phase in which it went wrong, and the reply if there was one
    ├── Unreachable      no connection, no greeting, no EHLO, or an answer that makes no sense
    ├── TlsFailed        TLS is not offered, or the certificate does not verify: nothing secret was sent
    └── AuthRefused      `permanent` if the relay rejects what we are: a person must look (RFC 4954 §6)
"""

from __future__ import annotations

from mailbound.errors import RelayError
from mailbound.model import Phase, Reply


class SessionError(RelayError):
    """A session with the relay could not be opened."""

    def __init__(self, phase: Phase, why: str, reply: Reply | None = None) -> None:
        """Keep where it went wrong; `why` is for people, `reply` is None if none was read."""
        super().__init__(f"{phase}: {why}")
        self.phase = phase
        self.why = why
        self.reply = reply

    @property
    def permanent(self) -> bool:
        """Return True if trying again without a change by a person is of no use."""
        return False


class Unreachable(SessionError):
    """The relay does not answer, or not as a relay does."""


class TlsFailed(SessionError):
    """The relay offers no TLS, or cannot prove who it is."""


class AuthRefused(SessionError):
    """The relay does not let us in: for good (535) or for now (454)."""

    @property
    def permanent(self) -> bool:
        """Return True unless the relay asked to come back later with a 4yz."""
        return self.reply is None or self.reply.code // 100 != 4

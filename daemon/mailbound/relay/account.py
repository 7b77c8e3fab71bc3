"""What is needed to open a session with a relay, and how long to be patient with it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from mailbound.model import Phase


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds to wait in each phase, for the whole reply. None is below the minimum of RFC 5321 §4.5.3.2."""

    connect: float = 300.0  # the connection, and then the greeting
    hello: float = 300.0
    starttls: float = 120.0
    auth: float = 120.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0  # for each block of the body
    final_dot: float = 600.0
    octets_per_second: float = (
        4096.0  # the slowest acceptable relay: a large body lengthens the wait after it
    )
    rset: float = 20.0
    quit: float = 5.0  # nothing depends on it

    def of(self, phase: Phase, *, size: int = 0) -> float:
        """Return the seconds to wait for a reply in `phase` of a transaction whose body has `size` octets."""
        if phase is Phase.FINAL_DOT:
            return self.final_dot + size / self.octets_per_second
        return float(getattr(self, phase))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An outbound account: where the relay is, how to trust it, and who we are to it.

    With `tls` "insecure" there is no TLS at all, and a password would travel in clear: it is for a relay on
    this machine. A `token` (a callable that returns an OAuth 2 access token) means XOAUTH2 and takes the
    place of `password`. Without an `ehlo_name` we introduce ourselves by our IP address (RFC 5321 §4.1.3).
    """

    host: str
    port: int
    tls: Literal["implicit", "starttls", "insecure"]
    username: str = ""
    password: str = field(default="", repr=False)
    token: Callable[[], Awaitable[str]] | None = field(default=None, repr=False)
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN", "CRAM-MD5")  # in order of preference
    ca_file: str = ""  # if set, only its authorities are trusted
    ehlo_name: str = ""
    deadlines: Deadlines = Deadlines()

    def context(self) -> ssl.SSLContext | None:
        """Return how TLS verifies this relay, or None for an insecure one. It reads files: keep it."""
        if self.tls == "insecure":
            return None
        context = ssl.create_default_context(cafile=self.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

"""The inbound account's mailbox, behind one small protocol, whatever it is read by.

A session is opened, listed, fetched from, and closed; one that can `watch` stays open instead, and is listed
again. `delete` is for what is durable elsewhere. What it names is gone at once (IMAP) or after
`close(commit=True)` (POP3); any other end of a session, whether wanted or not, takes nothing more away.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from mailbound.errors import MailboxError

HEAD_OCTETS = 262_144
"""So much is kept of a mail that is too large: a report says what it has to say before it gives the message back."""


@dataclass(frozen=True, slots=True)
class Item:
    """One mail as the mailbox lists it."""

    number: int  # names it in this session
    uid: str  # names it in all sessions, but two may share one (RFC 1939 §7); "": known when fetched
    size_octets: int  # as the server says; 0 if that is known only when it is fetched


@dataclass(frozen=True, slots=True)
class Fetched:
    """One mail, or its beginning."""

    item: Item  # with its size
    uid: str  # of the item or, where the server gives none, a hash of the content
    content: bytes  # lines end with CRLF; anything else is as the server sent it
    truncated: bool = False  # only its beginning, since it is larger than the limit


class Trouble(StrEnum):
    """Why a mailbox cannot be read."""

    NETWORK = "network"  # not reached, broken off, or too slow
    IN_USE = "in-use"  # another session has it open
    LOGIN_DELAY = "login-delay"  # we came too often
    TEMPORARY = "temporary"  # something else that will pass, as the server says
    CREDENTIALS = "credentials"  # wrong, or no longer valid
    PERMANENT = "permanent"  # something that will not pass, as the server says
    TLS = "tls"  # not offered, or the certificate does not verify
    PROTOCOL = "protocol"  # the server does not speak as it should

    @property
    def passing(self) -> bool:
        """Return whether to try again without calling for an operator."""
        return self in {Trouble.NETWORK, Trouble.IN_USE, Trouble.LOGIN_DELAY, Trouble.TEMPORARY}


class SessionError(MailboxError):
    """A session could not be opened, or has ended early."""

    def __init__(self, trouble: Trouble, why: str) -> None:
        """Keep the `trouble`, to tell what passes from what an operator must see to."""
        super().__init__(why)
        self.trouble = trouble


def unreachable(error: OSError) -> SessionError:
    """Return what an error of the network means, in words for people: without its number."""
    number = error.errno or 0
    if number > 0:
        why = os.strerror(number)
    elif "Multiple exceptions" in str(error):  # asyncio tried more than one address
        why = "no address of it takes a connection"
    else:
        why = error.strerror or str(error) or type(error).__name__
    return SessionError(Trouble.NETWORK, why)


class Mailbox(Protocol):
    """One session with a mailbox, for one task. Every method may raise SessionError, which ends it."""

    refused: list[tuple[Item, str]]
    """What the server would not hand over or let go since `list`, with its words; it lies there still."""

    login_delay_seconds: int
    """How long the server wants us to stay away between two sessions; 0 if it does not say."""

    series: str
    """What all uids are counted in: when it changes, each mail comes under a new one. "" if uids are for ever."""

    doubts: Sequence[str]
    """What an operator should know of this server, since it works less well than it could."""

    watch: Callable[[float], Coroutine[Any, Any, None]] | None
    """Waits until there may be new mail, so many seconds at most. None: end the session, and open another one."""

    async def list(self) -> Sequence[Item]:
        """Return what lies in the mailbox, oldest first."""
        ...

    def fetch(self, items: Iterable[Item]) -> AsyncGenerator[Fetched, None]:
        """Yield the mails in order, without those that are `refused`. Memory holds only a few at a time.

        More may be under way than were yielded: whoever stops early can do no more with the session than close it.
        """
        ...

    async def delete(self, items: Iterable[Item]) -> None:
        """Let mails go, without those that are `refused`."""
        ...

    async def close(self, *, commit: bool) -> None:
        """End the session: with `commit` all that was to be deleted goes, if it has not yet. Never raises.

        Only a session that had no trouble is committed. A commit that fails leaves some of the mails
        or all of them, to be seen again.
        """
        ...

"""The inbound mailbox by POP3 (RFC 1939, RFC 2449, RFC 2595), each session in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import poplib
import re
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from mailbound.mailbox import HEAD_OCTETS, Fetched, Item, SessionError, Trouble, listing, tls, unreachable
from mailbound.mailbox.listing import Listing
from mailbound.mailbox.pop3_client import Pop3Client, UnfitReplyError

# Where the server allows it, so many commands are under way at once, or mails of so many octets (RFC 2449 §6.6). It
# never has more of them than it can answer while we work on what came.
_WINDOW_COMMANDS = 256
_WINDOW_OCTETS = 1_048_576
_TOP_LINES = 1000  # of the body of a mail that is too large: where a report says what it has to say
_HEADER_OCTETS = 65_536  # by which a mail is told from others where there is no UIDL
_SLACK_OCTETS = 1_048_576  # a server may count a mail as smaller than it is, but it must end some time

_NAMELESS = "it has neither UIDL nor TOP: mail that stays in the mailbox is fetched again at each look"

_TROUBLES = {
    "IN-USE": Trouble.IN_USE,
    "LOGIN-DELAY": Trouble.LOGIN_DELAY,
    "SYS/TEMP": Trouble.TEMPORARY,
    "SYS/PERM": Trouble.PERMANENT,
    "AUTH": Trouble.CREDENTIALS,
}
_RESPONSE_CODE = re.compile(r"-ERR \[([A-Z/-]+)", re.IGNORECASE)
_LOCKED = re.compile(r"\b(?:lock(?:ed)?|in use|busy)\b", re.IGNORECASE)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    host: str
    port: int
    username: str
    password: str = field(repr=False)
    authentication: Literal["password", "xoauth2"]
    tls: Literal["implicit", "starttls", "insecure"]
    ca_file: Path | None
    timeout_seconds: float
    max_size_octets: int
    keeps: bool


async def open(  # noqa: A001 - it is called as pop3.open
    *,
    host: str,
    port: int,
    username: str,
    password: str,
    authentication: Literal["password", "xoauth2"] = "password",
    tls: Literal["implicit", "starttls", "insecure"] = "implicit",
    ca_file: Path | None = None,
    timeout_seconds: float = 60.0,
    max_size_octets: int = 10_485_760,
    keeps: bool = False,
) -> Pop3Mailbox:
    """Return a session, logged in. Raises SessionError.

    With `xoauth2` the password is an access token. Without a `ca_file` the authorities count that the
    system trusts. The timeout is for each reply as a whole, though a large one gets more; of a mail
    larger than the limit only the beginning is fetched. `keeps` says that nothing is going to be deleted, so that
    mails must be told from those seen before, even where the server has no names for them.
    """
    mailbox = Pop3Mailbox(
        _Account(
            host=host,
            port=port,
            username=username,
            password=password,
            authentication=authentication,
            tls=tls,
            ca_file=ca_file,
            timeout_seconds=timeout_seconds,
            max_size_octets=max_size_octets,
            keeps=keeps,
        )
    )
    await mailbox.log_in()
    return mailbox


class Pop3Mailbox:
    """A session, see `mailbox.Mailbox`. After any SessionError it is over."""

    def __init__(self, account: _Account) -> None:
        """Prepare a session, which begins with `log_in`."""
        self.refused: list[tuple[Item, str]] = []
        self.login_delay_seconds = 0  # the least time from one login to the next (RFC 2449 §6.5)
        self.series = ""
        self.doubts: Sequence[str] = ()
        self.watch: Callable[[float], Coroutine[Any, Any, None]] | None = (
            None  # a session sees what lay there when it began
        )
        self._account = account
        self._client = Pop3Client(account.host, account.port, account.timeout_seconds)
        self._window = 1  # commands that may be under way
        self._thread = ThreadPoolExecutor(1, "pop3")
        self._over = False

    async def log_in(self) -> None:
        """Connect and log in. Raises SessionError."""
        await self._run(self._log_in)

    async def list(self) -> Sequence[Item]:
        """Return what lies in the mailbox. Raises SessionError."""
        return await self._run(self._list)

    async def fetch(self, items: Iterable[Item]) -> AsyncGenerator[Fetched, None]:
        """Yield the mails, without those that are `refused`. Raises SessionError. To stop early ends the session."""
        waiting, asked = deque(items), deque[Item]()
        try:
            while waiting or asked:
                for fetched in await self._run(functools.partial(self._fetch, waiting, asked)):
                    yield fetched
        except (
            GeneratorExit
        ):  # the mails that it asked for are still to come, and some servers call them read
            self._drop()
            raise

    async def delete(self, items: Iterable[Item]) -> None:
        """Mark mails as deleted. Raises SessionError."""
        await self._run(functools.partial(self._delete, tuple(items)))

    async def close(self, *, commit: bool) -> None:
        """End the session; without `commit`, or after trouble, never by a QUIT (RFC 2449 §6.7)."""
        if self._over:
            return
        if commit:
            # A refusal (RFC 1939 §6) or a reply that is lost changes nothing: what is left comes again.
            with contextlib.suppress(SessionError):
                await self._run(self._client.quit)
        self._drop()

    async def _run(self, function: Callable[[], _T]) -> _T:
        """Return what `function` does in the session's thread. Whatever goes wrong ends the session."""
        if self._over:
            raise SessionError(Trouble.NETWORK, "the session is over")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, functools.partial(_translated, function)
            )
        except BaseException:  # a cancellation too: the reply that it did not wait for is still to come
            self._drop()
            raise

    def _drop(self) -> None:
        if not self._over:
            self._over = True
            self._client.interrupt()
            self._thread.submit(self._client.close)
            self._thread.shutdown(wait=False)

    # In the thread

    def _log_in(self) -> None:
        account, client = self._account, self._client
        if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in account.username + account.password):
            raise SessionError(Trouble.CREDENTIALS, "the user name or the password has a control character")
        context = None if account.tls == "insecure" else tls.context(account.ca_file)
        client.connect(context if account.tls == "implicit" else None)
        if account.tls == "starttls" and context is not None:
            with _blaming(Trouble.TLS):
                client.begin_tls(context)
        capabilities = client.capabilities()
        if "UTF8" in capabilities and not (account.username + account.password).isascii():
            client.command("UTF8")  # RFC 6856 §2
        self._authenticate(capabilities)
        delay = capabilities.get("LOGIN-DELAY", [])
        if "USER" in delay:  # it differs from user to user, and is known only now
            delay = client.capabilities().get("LOGIN-DELAY", delay)
        self.login_delay_seconds = int(delay[0]) if delay and delay[0].isdigit() else 0
        self._window = _WINDOW_COMMANDS if "PIPELINING" in capabilities else 1

    def _authenticate(self, capabilities: Mapping[str, Sequence[str]]) -> None:
        account, client = self._account, self._client
        explains = "AUTH-RESP-CODE" in capabilities
        # A server that explains itself marks wrong credentials by [AUTH] (RFC 3206 §6); another one does not.
        with _blaming(Trouble.TEMPORARY if explains else Trouble.CREDENTIALS):
            if account.authentication == "xoauth2":
                response = f"user={account.username}\1auth=Bearer {account.password}\1\1"
                client.authenticate("XOAUTH2", response.encode())
            elif "USER" not in capabilities and "PLAIN" in capabilities.get("SASL", []):  # RFC 2449 §6.3
                client.authenticate("PLAIN", f"\0{account.username}\0{account.password}".encode())
            else:
                client.user(account.username)
                client.pass_(account.password)

    def _list(self) -> Sequence[Item]:
        sizes = self._client.listing("LIST")
        try:
            uids = self._client.listing("UIDL")
        except poplib.error_proto:  # it is optional
            numbers = [number for number, _ in listing.numbered(sizes)] if self._account.keeps else []
            uids = b"".join(b"%d %s\r\n" % (number, name) for number, name in self._names(numbers))
        return Listing(sizes, uids)

    def _names(self, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield hashes of the headers, which carry when and how each mail came; none where TOP is not to be had."""
        for start in range(0, len(numbers), self._window):
            some = numbers[start : start + self._window]
            self._client.request([f"TOP {number} 0" for number in some])
            headers = [(number, header) for number in some if (header := self._header()) is not None]
            for number, header in headers:
                yield number, hashlib.sha256(header).hexdigest().encode()
            if not headers:
                self.doubts = (_NAMELESS,)
                return

    def _header(self) -> bytes | None:
        """Return the next header, or None if it is refused."""
        most = 16 * self._account.max_size_octets + _SLACK_OCTETS
        try:
            return self._client.long_reply(_HEADER_OCTETS, most)[0]
        except poplib.error_proto:
            return None

    def _fetch(self, waiting: deque[Item], asked: deque[Item]) -> Sequence[Fetched]:
        """Fetch some of the mails that were asked for, once more of those that wait were; or one large one."""
        if not asked and waiting[0].size_octets > self._account.max_size_octets:
            return self._fetch_head(waiting.popleft())
        self._ask(waiting, asked)
        mails: list[Fetched] = []
        octets = 0
        # While we read the first half, the server works on the second; the last ones are read together.
        for _ in range((len(asked) + 1) // 2 if waiting else len(asked)):
            fetched = self._read(asked.popleft())
            if fetched is not None:
                mails.append(fetched)
                octets += len(fetched.content)
                if octets > _WINDOW_OCTETS:  # whatever LIST said
                    break
        return mails

    def _ask(self, waiting: deque[Item], asked: deque[Item]) -> None:
        """Ask for as many mails as may be under way. A large one waits for that to end: TOP may need a RETR."""
        octets = sum(item.size_octets for item in asked)
        more: list[Item] = []
        while waiting and len(asked) + len(more) < self._window:
            octets += waiting[0].size_octets
            if waiting[0].size_octets > self._account.max_size_octets or (
                (asked or more) and octets > _WINDOW_OCTETS
            ):
                break
            more.append(waiting.popleft())
        if more:
            self._client.request([f"RETR {item.number}" for item in more])
            asked.extend(more)

    def _fetch_head(self, item: Item) -> Sequence[Fetched]:
        """Fetch the beginning of a mail. Nothing else may be under way."""
        self._client.request([f"TOP {item.number} {_TOP_LINES}"])
        fetched = self._read(item, truncated=True)
        if fetched is None:  # TOP is optional; RETR, and let go of what is too much
            self.refused.pop()
            self._client.request([f"RETR {item.number}"])
            fetched = self._read(item)
        return [] if fetched is None else [fetched]

    def _read(self, item: Item, *, truncated: bool = False) -> Fetched | None:
        limit = self._account.max_size_octets
        most = 2 * item.size_octets + 16 * limit + _SLACK_OCTETS
        try:
            content, cut = self._client.long_reply(min(limit, HEAD_OCTETS) if truncated else limit, most)
        except poplib.error_proto as error:
            self.refused.append((item, str(error)))
            return None
        uid = item.uid or hashlib.sha256(content).hexdigest()
        return Fetched(item, uid, content, truncated or cut)

    def _delete(self, items: Sequence[Item]) -> None:
        for start in range(0, len(items), self._window):
            group = items[start : start + self._window]
            self._client.request([f"DELE {item.number}" for item in group])
            for item in group:
                try:
                    self._client.reply()
                except poplib.error_proto as error:
                    self.refused.append((item, str(error)))


@contextlib.contextmanager
def _blaming(trouble: Trouble) -> Iterator[None]:
    """Make a refusal that does not explain itself mean `trouble`."""
    try:
        yield
    except poplib.error_proto as error:
        raise SessionError(_trouble(str(error), trouble), str(error)) from error


def _trouble(reply: str, otherwise: Trouble) -> Trouble:
    code = _RESPONSE_CODE.match(reply)
    if code is not None:
        return _TROUBLES.get(code[1].upper(), otherwise)
    return Trouble.IN_USE if otherwise is Trouble.CREDENTIALS and _LOCKED.search(reply) else otherwise


def _translated(function: Callable[[], _T]) -> _T:
    """Return what `function` returns, with its exceptions turned into SessionError."""
    try:
        with _blaming(Trouble.TEMPORARY):
            return function()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise SessionError(Trouble.NETWORK, "the server hung up") from error
    except ssl.SSLError as error:
        raise SessionError(Trouble.TLS, f"TLS failed: {error}") from error
    except OSError as error:
        raise unreachable(error) from error
    except (UnfitReplyError, ValueError) as error:
        raise SessionError(Trouble.PROTOCOL, str(error)) from error

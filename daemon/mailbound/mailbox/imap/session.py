"""A session with an IMAP folder (RFC 3501): what lies there, what it says, and where it goes once it is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from mailbound.mailbox import HEAD_OCTETS, Fetched, Item, SessionError, Trouble, tls
from mailbound.mailbox.imap import replies
from mailbound.mailbox.imap.connection import Connection, Reply, translated
from mailbound.mailbox.imap.replies import Message

_MAILS_AT_ONCE = 50
_OCTETS_AT_ONCE = 1_048_576
_GOODBYE_SECONDS = 2.0  # nothing depends on it

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where a folder is, how to get in, and what becomes of its mail."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)  # with xoauth2 an access token
    authentication: Literal["password", "xoauth2"]
    tls: Literal["implicit", "insecure"]
    ca_file: Path | None
    folder: str
    after_storing: Literal["delete", "archive", "keep"]
    archive_folder: str
    timeout_seconds: float
    max_size_octets: int
    idle_seconds: float


class ImapMailbox:
    """A session, see `mailbox.Mailbox`. After any SessionError it is over."""

    def __init__(self, account: Account) -> None:
        """Prepare a session, which begins with `log_in`."""
        self.refused: list[tuple[Item, str]] = []
        self.login_delay_seconds = 0
        self.series = ""
        self.doubts: Sequence[str] = ()
        self.watch: Callable[[float], Coroutine[Any, Any, None]] | None = None
        self._account = account
        self._connection = Connection(account.timeout_seconds)
        self._capabilities: set[str] = set()
        self._over = False

    async def log_in(self) -> None:
        """Connect, log in and open the folder. Raises SessionError."""
        await self._run(self._log_in())

    async def list(self) -> Sequence[Item]:
        """Return what lies in the folder, without sizes. Raises SessionError."""
        return await self._run(self._list())

    async def fetch(self, items: Iterable[Item]) -> AsyncGenerator[Fetched, None]:
        """Yield the mails with their sizes, without those that are `refused` or gone. Raises SessionError."""
        everything = tuple(items)
        for start in range(0, len(everything), _MAILS_AT_ONCE):
            sized = await self._run(self._sized(everything[start : start + _MAILS_AT_ONCE]))
            for group in _groups(sized, min(_OCTETS_AT_ONCE, self._account.max_size_octets)):
                for fetched in await self._run(self._fetch(group)):
                    yield fetched

    async def delete(self, items: Iterable[Item]) -> None:
        """Let mails go, at once, as the account says: into nothing or into the archive. Raises SessionError."""
        await self._run(self._delete(tuple(items)))

    async def close(self, *, commit: bool) -> None:
        """End the session. What was deleted is gone already, so nothing is left to commit."""
        if commit and not self._over:
            with contextlib.suppress(SessionError, TimeoutError):
                await asyncio.wait_for(self._run(self._connection.command("LOGOUT")), _GOODBYE_SECONDS)
        self._drop()

    async def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what `work` does. Whatever goes wrong ends the session: a reply may still be on its way."""
        if self._over:
            work.close()
            raise SessionError(Trouble.NETWORK, "the session is over")
        try:
            with translated():
                return await work
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        self._over = True
        self._connection.drop()

    # Logging in

    async def _log_in(self) -> None:
        account = self._account
        if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in account.username + account.password):
            raise SessionError(Trouble.CREDENTIALS, "the user name or the password has a control character")
        context = None if account.tls == "insecure" else await asyncio.to_thread(tls.context, account.ca_file)
        greeting = await self._connection.open(account.host, account.port, context)
        if greeting.upper().startswith("* PREAUTH"):
            self._connection.authenticated()
        elif not greeting.upper().startswith("* OK"):
            raise SessionError(Trouble.PROTOCOL, f"this is no greeting of IMAP: {greeting[:80]!r}")
        else:
            await self._learn_capabilities()
            _must(await self._authenticate(), Trouble.CREDENTIALS)
            self._connection.authenticated()
        await self._learn_capabilities()
        await self._select()
        if "IDLE" in self._capabilities:
            self.watch = self._watch
        self.doubts = tuple(self._doubts())

    async def _learn_capabilities(self) -> None:
        reply = _must(await self._connection.command("CAPABILITY"), Trouble.PROTOCOL)
        self._capabilities = set(replies.readable(b" ".join(reply.lines[:-1])).upper().split())

    async def _authenticate(self) -> Reply:
        username, password = self._account.username, self._account.password
        if self._account.authentication == "xoauth2":
            response = f"user={username}\1auth=Bearer {password}\1\1"
            return await self._connection.authenticate("XOAUTH2", response.encode())
        if "AUTH=PLAIN" in self._capabilities:  # takes any character
            return await self._connection.authenticate("PLAIN", f"\0{username}\0{password}".encode())
        if "LOGINDISABLED" in self._capabilities:
            raise SessionError(Trouble.CREDENTIALS, "the server takes no password here, by LOGIN or PLAIN")
        return await self._connection.command("LOGIN", replies.quoted(username), replies.quoted(password))

    async def _select(self) -> None:
        # To look is enough for who keeps everything, and changes nothing, not even what is \Recent.
        keeps = self._account.after_storing == "keep"
        folder = replies.folder(self._account.folder)
        reply = await self._connection.command("EXAMINE" if keeps else "SELECT", folder)
        _must(reply, Trouble.PERMANENT, f"the folder {self._account.folder} cannot be opened: ")
        self.series = str(replies.uid_validity(reply.lines))
        if replies.code(reply.text) == "READ-ONLY" and not keeps:
            raise SessionError(
                Trouble.PERMANENT,
                f'the folder {self._account.folder} is read-only; use after_storing = "keep"',
            )
        self._connection.selected()

    def _doubts(self) -> Iterator[str]:
        if "IDLE" not in self._capabilities:
            yield "it has no IDLE, so new mail is seen only when the mailbox is polled"
        if self._only_marks:
            yield "it has no UIDPLUS, so what is stored is marked as deleted, and stays until somebody expunges it"

    @property
    def _only_marks(self) -> bool:
        """Return whether mails cannot be deleted one by one: EXPUNGE alone took what others have marked, too."""
        after = self._account.after_storing
        moves = after == "archive" and "MOVE" in self._capabilities
        return after != "keep" and not moves and "UIDPLUS" not in self._capabilities

    # Looking

    async def _list(self) -> Sequence[Item]:
        self.refused.clear()
        self._connection.news.clear()
        wanted = "UNDELETED" if self._only_marks else "ALL"
        reply = _must(await self._connection.command("SEARCH", wanted, uid=True), Trouble.TEMPORARY)
        return [Item(uid, f"{self.series}/{uid}", 0) for uid in replies.uids(reply.lines)]

    async def _watch(self, seconds: float) -> None:
        """Wait for new mail; IDLE is given again before a server takes us for dead (RFC 2177 §3).

        Where it is refused there is nothing to wait for, and `watch` is None from now on.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._connection.news.is_set() and (left := until - loop.time()) > 0:
            if not await self._run(self._connection.idle(min(left, self._account.idle_seconds))):
                self.watch = None
                self.doubts = (
                    *self.doubts,
                    "it refuses IDLE, so new mail is seen only when the mailbox is polled",
                )
                break
        self._connection.news.clear()

    # Fetching

    async def _sized(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return those of the items that are still there, with their sizes."""
        reply = await self._connection.command("FETCH", _set(items), "(UID RFC822.SIZE)", uid=True)
        _must(reply, Trouble.TEMPORARY)
        sizes = {message.uid: message.size_octets for message in replies.messages(reply.lines[:-1])}
        return [
            replace(item, size_octets=size) for item in items if (size := sizes.get(item.number)) is not None
        ]

    async def _fetch(self, group: Sequence[Item]) -> Sequence[Fetched]:
        """Fetch a group of mails, the large one's head; what the server refuses together it is asked for singly."""
        limit = self._account.max_size_octets
        most = min(HEAD_OCTETS, limit) if group[0].size_octets > limit else limit
        # PEEK leaves the mail unseen, for whoever else looks; the range holds a server that counted too little.
        reply = await self._connection.command(
            "FETCH", _set(group), f"(UID BODY.PEEK[]<0.{most + 1}>)", uid=True, octets=len(group) * (most + 1)
        )
        if not reply.ok and len(group) > 1:
            return [fetched for item in group for fetched in await self._fetch([item])]
        if not reply.ok:
            self.refused.append((group[0], _refusal(reply)))
            return []
        found = {message.uid: message for message in replies.messages(reply.lines[:-1])}
        return [fetched for item in group for fetched in self._fetched(item, found.get(item.number), most)]

    def _fetched(self, item: Item, message: Message | None, most: int) -> Iterator[Fetched]:
        if message is None:
            return  # it has gone in the meantime
        if message.content is None:
            self.refused.append((item, "the server has lost its content"))
            return
        content, truncated = message.content, len(message.content) > most
        if truncated:
            end = content.rfind(b"\r\n", 0, most)
            content = content[: end + 2] if end >= 0 else content[:most]
        yield Fetched(item, item.uid, content, truncated)

    # Letting go

    async def _delete(self, items: Sequence[Item]) -> None:
        if not items:
            return
        if self._account.after_storing == "archive":
            moves = "MOVE" in self._capabilities
            if not await self._archive("MOVE" if moves else "COPY", items) or moves:
                return
        flags = ("+FLAGS.SILENT", r"(\Deleted)")
        reply = await self._connection.command("STORE", _set(items), *flags, uid=True, answers="FETCH")
        if self._done(reply, items) and "UIDPLUS" in self._capabilities:
            self._done(await self._connection.command("EXPUNGE", _set(items), uid=True), items)

    async def _archive(self, verb: str, items: Sequence[Item]) -> bool:
        """Bring mails into the archive, which is made if it is not there; return whether they are in it."""
        folder = replies.folder(self._account.archive_folder)
        reply = await self._connection.command(verb, _set(items), folder, uid=True)
        if replies.code(reply.text) == "TRYCREATE" and (await self._connection.command("CREATE", folder)).ok:
            reply = await self._connection.command(verb, _set(items), folder, uid=True)
        return self._done(reply, items)

    def _done(self, reply: Reply, items: Iterable[Item]) -> bool:
        if not reply.ok:
            self.refused += [(item, _refusal(reply)) for item in items]
        return reply.ok


def _must(reply: Reply, otherwise: Trouble, what: str = "") -> Reply:
    """Return the reply if it is a yes. Raises SessionError."""
    if reply.ok:
        return reply
    raise SessionError(replies.trouble(reply.text, otherwise), what + _refusal(reply))


def _refusal(reply: Reply) -> str:
    return f"{reply.result} {reply.text}"


def _set(items: Iterable[Item]) -> str:
    return replies.uid_set(item.number for item in items)


def _groups(items: Iterable[Item], largest: int) -> Iterator[Sequence[Item]]:
    """Yield the items in groups to be asked for together; one that is too large stands alone."""
    group: list[Item] = []
    octets = 0
    for item in items:
        alone = item.size_octets > largest
        if group and (alone or octets + item.size_octets > _OCTETS_AT_ONCE):
            yield group
            group, octets = [], 0
        if alone:
            yield [item]
        else:
            group.append(item)
            octets += item.size_octets
    if group:
        yield group

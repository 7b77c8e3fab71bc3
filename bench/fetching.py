"""Fetching from a real Dovecot by POP3: our session against poplib's RETR one by one, the same mails."""

from __future__ import annotations

import asyncio
import poplib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import backlog
import figures
import transport
from figures import Figure, Scale
from mailbound.mailbox import pop3
from mailbound.tokens import Key
from servers import processes
from servers.mailnet import PASSWORD, MailNet

_SHARE = 2
"""Half of the usual messages are enough."""

_FAR_SHARE = 20
"""And so many times less where each costs poplib a round trip."""

_WINDOW = 256  # commands of the bare client that are under way at once
_BATCH = 200  # mails that the daemon fetches, keeps and deletes together


@dataclass(frozen=True)
class _Fetched:
    """What one side did in one round."""

    rate: float  # mails a second, from the first RETR to the last octet
    cpu_us: float  # for each mail


@dataclass(frozen=True)
class _Inbox:
    """A mailbox full of mail, and the three who fetch all of it; what they delete comes back, for they never QUIT."""

    port: int
    user: str
    mails: int
    octets: int

    def ours(self) -> _Fetched:
        """Fetch by our session."""
        return asyncio.run(self._ours(self.mails, delete=False))

    def our_drain(self) -> _Fetched:
        """Fetch and delete as the daemon does, in batches."""
        return asyncio.run(self._ours(_BATCH, delete=True))

    async def _ours(self, batch: int, *, delete: bool) -> _Fetched:
        mailbox = await pop3.open(
            host="localhost", port=self.port, tls="insecure", username=self.user, password=PASSWORD
        )
        items = await mailbox.list()
        assert len(items) == self.mails
        done = _clock(self.mails)
        octets = 0
        for start in range(0, self.mails, batch):
            some = items[start : start + batch]
            async for mail in mailbox.fetch(some):
                octets += len(mail.content)
            if delete:
                await mailbox.delete(some)
        fetched = done()
        assert octets == self.octets, f"{octets} octets came, not {self.octets}"
        assert not mailbox.refused
        await mailbox.close(commit=False)
        return fetched

    def poplib(self) -> _Fetched:
        """Fetch as the standard library does."""
        return self._poplib(delete=False)

    def poplib_drain(self) -> _Fetched:
        """Fetch and delete as the standard library does."""
        return self._poplib(delete=True)

    def _poplib(self, *, delete: bool) -> _Fetched:
        session = poplib.POP3("localhost", self.port)
        session.user(self.user)
        session.pass_(PASSWORD)
        session.list()
        done = _clock(self.mails)
        octets = 0
        for number in range(1, self.mails + 1):
            octets += session.retr(number)[2]
            if delete:
                session.dele(number)
        fetched = done()
        assert octets <= self.octets  # it does not count all octets of a line's end
        session.close()
        return fetched

    def bare(self) -> _Fetched:
        """Fetch by a client that looks for nothing but the ends of the mails."""
        with socket.create_connection(("localhost", self.port)) as line:
            replies = line.makefile("rb")
            for command in (f"USER {self.user}", f"PASS {PASSWORD}"):
                replies.readline()
                line.sendall(command.encode() + b"\r\n")
            assert replies.readline().startswith(b"+OK")
            done = _clock(self.mails)
            asked, ended, tail = 0, 0, b""
            while ended < self.mails:
                if asked < self.mails and asked - ended <= _WINDOW // 2:
                    more = range(asked + 1, min(asked + _WINDOW // 2, self.mails) + 1)
                    line.sendall(b"".join(b"RETR %d\r\n" % number for number in more))
                    asked += len(more)
                tail += line.recv(262_144)
                ended += tail.count(b"\r\n.\r\n")
                tail = tail[-4:]
            return done()


def measure(scale: Scale) -> Iterator[Figure]:
    """Return our rates against poplib's, near and far, and against the bare client's."""
    with MailNet() as net:
        port = net.ports["pop3"]
        far_port, line = transport.line(port, net.home / "log")
        try:
            mails = max(1, scale.messages // _SHARE)
            near = _inbox(net, port, "boxed@sender.test", mails)
            files = _inbox(net, port, "files@sender.test", mails)
            far = _inbox(net, far_port, "boxed1@sender.test", max(1, mails // _FAR_SHARE))
            sides = {
                "ours": near.ours,
                "poplib": near.poplib,
                "bare": near.bare,
                "drain": near.our_drain,
                "poplib_drain": near.poplib_drain,
                "maildir": files.ours,
                "poplib_maildir": files.poplib,
                "bare_maildir": files.bare,
                "far": far.ours,
                "poplib_far": far.poplib,
            }
            seen = figures.take_turns(sides, scale.rounds)
        finally:
            processes.stop(line)
    rates = {name: [each.rate for each in fetched] for name, fetched in seen.items()}
    beside = figures.medians(
        **rates, **{f"{name}_cpu_us": [each.cpu_us for each in fetched] for name, fetched in seen.items()}
    )
    for name, ours, theirs, goal in (
        ("RETR / poplib, one by one", "ours", "poplib", 5),
        ("RETR and DELE / poplib, one by one", "drain", "poplib_drain", 5),
        (f"RETR / poplib, round trip {transport.ROUND_TRIP_MS:g} ms", "far", "poplib_far", 20),
        ("RETR / a bare pipelined client", "ours", "bare", 0.7),
        ("RETR from a maildir / a bare pipelined client", "maildir", "bare_maildir", 0.7),
    ):
        yield Figure(f"POP3 {name}", figures.ratios(rates[ours], rates[theirs]), goal, beside=beside)
        beside = {}


def _inbox(net: MailNet, port: int, user: str, mails: int) -> _Inbox:
    """Return a full mailbox: a maildir or, of who is boxed, few large files: Dovecot opens none for each mail."""
    reports = backlog.reports_about(mails, key=Key(0, b"k" * 32), day=backlog.today())
    made = _Inbox(port, user, mails, backlog.fill(net.maildir(user), reports))
    if user.startswith("boxed"):
        net.box_up(user)
    made.poplib()  # the first to come waits while Dovecot makes its index
    return made


def _clock(mails: int) -> Callable[[], _Fetched]:
    """Begin now; what is returned says what so many mails took since."""
    wall, cpu = time.monotonic(), time.process_time()

    def done() -> _Fetched:
        return _Fetched(mails / (time.monotonic() - wall), (time.process_time() - cpu) / mails * 1e6)

    return done

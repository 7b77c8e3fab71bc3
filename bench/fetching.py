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


@dataclass(frozen=True)
class _Fetched:
    """What one side did in one round."""

    rate: float  # mails a second, from the first RETR to the last octet
    cpu_us: float  # for each mail


@dataclass(frozen=True)
class _Inbox:
    """A mailbox full of mail, and the three who fetch all of it and delete nothing."""

    port: int
    user: str
    mails: int
    octets: int

    def ours(self) -> _Fetched:
        """Fetch as the daemon does."""
        return asyncio.run(self._ours())

    async def _ours(self) -> _Fetched:
        mailbox = await pop3.open(
            host="localhost", port=self.port, tls="insecure", username=self.user, password=PASSWORD
        )
        items = await mailbox.list()
        assert len(items) == self.mails
        done = _clock(self.mails)
        octets = 0
        async for mail in mailbox.fetch(items):
            octets += len(mail.content)
        fetched = done()
        assert octets == self.octets, f"{octets} octets came, not {self.octets}"
        await mailbox.close(commit=False)
        return fetched

    def poplib(self) -> _Fetched:
        """Fetch as the standard library does."""
        session = poplib.POP3("localhost", self.port)
        session.user(self.user)
        session.pass_(PASSWORD)
        session.list()
        done = _clock(self.mails)
        octets = sum(session.retr(number)[2] for number in range(1, self.mails + 1))
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
    """Return our rate against poplib's, near and far, and against the bare client's."""
    with MailNet() as net:
        far_port, line = transport.line(net.ports["pop3"], net.home / "log")
        try:
            near = _inbox(net, net.ports["pop3"], "near@sender.test", max(1, scale.messages // _SHARE))
            far = _inbox(net, far_port, "far@sender.test", max(1, near.mails // _FAR_SHARE))
            sides = {
                "ours": near.ours,
                "poplib": near.poplib,
                "bare": near.bare,
                "far": far.ours,
                "far_poplib": far.poplib,
            }
            seen = figures.take_turns(sides, scale.rounds)
        finally:
            processes.stop(line)
    rates = {name: [each.rate for each in fetched] for name, fetched in seen.items()}
    beside = figures.medians(
        **rates, **{f"{name}_cpu_us": [each.cpu_us for each in fetched] for name, fetched in seen.items()}
    )
    yield Figure(
        "POP3 / poplib, RETR one by one", figures.ratios(rates["ours"], rates["poplib"]), 5, beside=beside
    )
    name = f"POP3 / poplib, round trip {transport.ROUND_TRIP_MS:g} ms"
    yield Figure(name, figures.ratios(rates["far"], rates["far_poplib"]), 20)
    yield Figure("POP3 / a bare pipelined client", figures.ratios(rates["ours"], rates["bare"]), 0.7)


def _inbox(net: MailNet, port: int, user: str, mails: int) -> _Inbox:
    reports = backlog.reports_about(mails, key=Key(0, b"k" * 32), day=backlog.today())
    made = _Inbox(port, user, mails, backlog.fill(net.maildir(user), reports))
    made.bare()  # the first to come waits while Dovecot makes its index
    return made


def _clock(mails: int) -> Callable[[], _Fetched]:
    """Begin now; what is returned says what so many mails took since."""
    wall, cpu = time.monotonic(), time.process_time()

    def done() -> _Fetched:
        return _Fetched(mails / (time.monotonic() - wall), (time.process_time() - cpu) / mails * 1e6)

    return done

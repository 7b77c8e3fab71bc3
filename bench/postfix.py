"""Into a real Postfix, with TLS and AUTH: the daemon against a bare client of the same number of connections."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import figures
import stage
from figures import Figure, Scale
from sending import OCTETS
from servers.mailnet import PASSWORD, MailNet
from stage import Stage

_CONNECTIONS = 20
_USER = "relayuser@sender.test"
_SHARE = 4
"""Postfix syncs each message, so it gets only this part of them."""

_OUTBOUND = """
port = {port}
tls = "implicit"
username = "{user}"
password_credential = "relay-password"
ca_file = "{ca}"
"""


def measure(scale: Scale) -> Iterator[Figure]:
    """Return our rate against the bare client's. What Postfix accepts it throws away."""
    messages = max(scale.messages // _SHARE, _CONNECTIONS)
    with MailNet(settings=("default_transport = discard:",)) as net:
        sides = {"ours": partial(_ours, net, messages), "bare": partial(_bare, net, messages)}
        seen = figures.take_turns(sides, scale.rounds)
    ratios = figures.ratios(seen["ours"], seen["bare"])
    beside = figures.medians(rate=seen["ours"], bare_rate=seen["bare"])
    yield Figure("into Postfix, TLS and AUTH, 20 connections / a bare client", ratios, 0.95, beside=beside)


def _ours(net: MailNet, messages: int) -> float:
    """Return the daemon's rate, by the times at which its deliveries were settled."""
    outbound = _OUTBOUND.format(port=net.ports["smtps"], user=_USER, ca=net.ca)
    with (
        stage.folder() as folder,
        Stage(folder, port=0, outbound=outbound, connections=_CONNECTIONS) as here,
    ):
        here.crowd(messages)
        here.start()
        here.mail("spring")
        here.await_sent("spring")
        count, seconds = here.accepted()
        here.stop()
        assert count == messages, f"{count} of {messages} were accepted"
        return (messages - 1) / seconds


def _bare(net: MailNet, messages: int) -> float:
    """Return the rate of threads that do nothing but write and read, pipelining what RFC 2920 allows."""
    each = [messages // _CONNECTIONS + (number < messages % _CONNECTIONS) for number in range(_CONNECTIONS)]
    moments: list[float] = []
    threads = [threading.Thread(target=_push, args=(net, count, moments)) for count in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(moments) == messages, f"{len(moments)} of {messages} were accepted"
    return (messages - 1) / (max(moments) - min(moments))


def _push(net: MailNet, messages: int, moments: list[float]) -> None:
    address = ("localhost", net.ports["smtps"])
    with (
        socket.create_connection(address) as plain,
        net.tls().wrap_socket(plain, server_hostname="localhost") as line,
        line.makefile("rb") as replies,
    ):
        login = base64.b64encode(f"\0{_USER}\0{PASSWORD}".encode())
        _expect(replies, 220)
        for command, code in ((b"EHLO bare.test", 250), (b"AUTH PLAIN " + login, 235)):
            line.sendall(command + b"\r\n")
            _expect(replies, code)
        body = b"Subject: Spring\r\n\r\n" + b"It is spring, and everything is new.\r\n" * (OCTETS // 38)
        envelope = b"MAIL FROM:<bounces@sender.test>\r\nRCPT TO:<person@domain1.test>\r\nDATA\r\n"
        line.sendall(envelope)
        for number in range(messages):
            for code in (250, 250, 354):
                _expect(replies, code)
            line.sendall(body + b".\r\n" + (envelope if number + 1 < messages else b"QUIT\r\n"))
            _expect(replies, 250)
            moments.append(time.monotonic())


def _expect(replies: BinaryIO, code: int) -> None:
    """Read one reply. Raises AssertionError if it is another one."""
    while (line := replies.readline())[3:4] == b"-":
        pass
    assert line.startswith(str(code).encode()), f"{line!r} instead of {code}"

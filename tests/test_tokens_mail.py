"""Mailboxes that are opened by a token: against a Dovecot that asks an endpoint whether it is valid."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailbound import config
from mailbound.mailbox import SessionError, Trouble, opening
from servers.mailnet import dovecot_series
from servers.tokens import TokenDovecot

USER = "bounces@sender.test"
MAIL = b"Subject: hello\r\n\r\nHello\r\n"


@pytest.fixture(scope="module")
def dovecot() -> Iterator[TokenDovecot]:
    if dovecot_series() != "2.3":
        pytest.skip("its configuration is in the words of Dovecot 2.3")
    with TokenDovecot() as server:
        yield server


def _account(folder: Path, dovecot: TokenDovecot, protocol: str) -> config.Inbox:
    """Return an account whose command prints what stands in the file `token`."""
    program = folder / "command"
    program.write_text(f"#!/bin/sh\ncat {folder}/token\n")
    program.chmod(0o755)
    return config.Inbox(
        address=USER,
        host="127.0.0.1",
        port=dovecot.ports[protocol],
        tls="insecure",
        protocol=protocol,
        username=USER,
        token_command=[str(program)],
    )


async def _fetch(account: config.Inbox) -> list[bytes]:
    mailbox = await opening.open(account, largest_octets=1_000_000)
    try:
        return [mail.content async for mail in mailbox.fetch(await mailbox.list())]
    finally:
        await mailbox.close(commit=False)


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
@pytest.mark.parametrize("length", [40, 2500], ids=["short", "longer than a line of POP3"])
def test_a_valid_token_opens_the_mailbox(
    dovecot: TokenDovecot, tmp_path: Path, protocol: str, length: int
) -> None:
    token = protocol[0] * length
    dovecot.tokens[token] = USER
    dovecot.deliver(USER, MAIL)
    (tmp_path / "token").write_text(token)
    assert asyncio.run(_fetch(_account(tmp_path, dovecot, protocol))) == [MAIL], dovecot.log()


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
@pytest.mark.parametrize("whose", [None, "somebody@else.test"], ids=["expired", "of somebody else"])
def test_a_token_that_is_not_valid_calls_for_an_operator(
    dovecot: TokenDovecot, tmp_path: Path, protocol: str, whose: str | None
) -> None:
    if whose:
        dovecot.tokens["theirs"] = whose
    (tmp_path / "token").write_text("theirs" if whose else "old")
    with pytest.raises(SessionError) as raised:
        asyncio.run(_fetch(_account(tmp_path, dovecot, protocol)))
    assert raised.value.trouble is Trouble.CREDENTIALS, dovecot.log()

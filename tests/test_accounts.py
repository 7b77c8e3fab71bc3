"""Many inbound accounts in one daemon, on a real server: what is wrong with one is no other's trouble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

import inbox
from box import Box
from ledger_relay import Gate, Point
from mailbound.database.tables import inbound_mail, store
from servers.mailnet import MailNet
from tapped import tapped

ACCOUNT = """
[stores.{name}]
name = "{name}"
list_id = "{name}.sender.test"
[stores.{name}.outbound]
address = "hello@sender.test"
host = "localhost"
port = {relay}
tls = "insecure"
[stores.{name}.inbound]
address = "{name}-account@sender.test"
protocol = "{protocol}"
host = "localhost"
port = {port}
tls = "insecure"
username = "{name}-account@sender.test"
password_credential = "{password}"
"""
WELL = ["main", "second", "third", "folder"]


def test_each_account_goes_its_own_pace_and_only_what_needs_a_person_alarms(
    mailnet: MailNet, tmp_path: Path
) -> None:
    """Four are well; one hands its mail over slowly, one refuses the password, one is down."""
    pop3, closed = mailnet.ports["pop3"], mailnet.ports["closed"]
    with tapped(pop3) as tap:
        tap.at(Point("client", "RETR "), slow := Gate())
        accounts = [
            _account("second", pop3, relay=closed),
            _account("third", pop3, relay=closed),
            _account("folder", mailnet.ports["imap"], protocol="imap", relay=closed),
            _account("slow", tap.port, relay=closed),
            _account("refused", pop3, password="wrong-password", relay=closed),
            _account("down", closed, relay=closed),
        ]
        with Box(
            tmp_path,
            more="".join(accounts),
            bounces="main-account@sender.test",
            outbound=f'port = {closed}\ntls = "insecure"',
            inbound=f'port = {pop3}\ntls = "insecure"',
        ) as box:
            box.environment["WRONG_PASSWORD"] = "nonsense"
            box.start()
            for number in range(1, 4):
                for name in [*WELL, "slow"]:
                    mailnet.deliver(f"{name}-account@sender.test", inbox.MAIL % number)
                everywhere = dict.fromkeys(WELL, number)
                box.wait(lambda all_=everywhere: _fetched(box) == all_, "the mail of those that are well")
            box.wait(slow.reached, "the slow one to be asked for its mail")
            assert _fetched(box) == dict.fromkeys(WELL, 3), "they did not wait for it"
            box.wait(lambda: bool(_troubles(box, "refused")), "the refusal")
            box.wait(lambda: bool(_troubles(box, "down")), "the silence of what is down")
            slow.open()
            box.wait(lambda: _fetched(box).get("slow") == 3, "the slow one")
            assert box.stop() == 0
            (alarm,) = [each for each in box.events() if each["level"] == "error"]
            assert (alarm["event"], alarm["store"]) == ("mailbox.failed", "refused")
            assert (alarm["host"], alarm["account"]) == ("localhost", "r***@sender.test"), "where to look"
            assert alarm["retry_in"] >= 300, "each try may bring the account nearer to a lock"
            assert _troubles(box, "refused") == [alarm], "so it was tried once"
            failed = [each for each in box.events() if each["event"] == "mailbox.failed"]
            assert {each["store"] for each in failed} == {"refused", "down"}
            assert _troubles(box, "down")[0]["retry_in"] < 10, "it is tried again soon"
        assert [name for name in [*WELL, "slow"] if mailnet.mails(f"{name}-account@sender.test")] == []


def _account(name: str, port: int, **more: Any) -> str:
    defaults = {"protocol": "pop3", "password": "mailbox-password"}
    return ACCOUNT.format(name=name, port=port, **{**defaults, **more})


def _fetched(box: Box) -> dict[str, int]:
    """Return how many mails of each store are in safety."""
    query = sa.select(store.c.name, sa.func.count().label("mails")).join(
        inbound_mail, inbound_mail.c.store_id == store.c.id
    )
    return {row.name: row.mails for row in box.rows(query.group_by(store.c.name))}


def _troubles(box: Box, name: str) -> list[dict[str, Any]]:
    return [each for each in box.events() if each["event"] == "mailbox.failed" and each["store"] == name]

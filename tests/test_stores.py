"""Two stores in one daemon: each with its own relay and mailbox, its own wishes, and no say over the other."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from box import Box
from ledger_relay import LedgerRelay
from mailbound.database import tables

_SHOP = """
[stores.shop]
name = "Example Shop"
list_id = "shop.sender.test"
[stores.shop.outbound]
address = "shop@sender.test"
host = "localhost"
ehlo_name = "client.sender.test"
{outbound}
[stores.shop.inbound]
address = "shop-bounces@sender.test"
host = "localhost"
username = "shop"
password_credential = "mailbox-password"
{inbound}
"""


def _sent_to(relay: LedgerRelay) -> set[str]:
    return {recipient for _, recipient in relay.ledger()}


def _wishes(box: Box) -> dict[tuple[str, str], str]:
    rows = box.rows(
        sa.select(
            tables.recipient.c.external_id,
            tables.store.c.name,
            tables.opt_in.c.receive,
            tables.opt_in.c.source,
        )
        .join(tables.opt_in, tables.opt_in.c.recipient_id == tables.recipient.c.id)
        .join(tables.store, tables.store.c.id == tables.opt_in.c.store_id)
    )
    return {(row.external_id, row.name): f"{'in' if row.receive else 'out'} {row.source}" for row in rows}


def test_each_store_sends_and_hears_for_itself(tmp_path: Path) -> None:
    (tmp_path / "news").mkdir()
    with (
        LedgerRelay(tmp_path / "news/ledger") as news,
        LedgerRelay(tmp_path / "shop.ledger") as shop,
        Box(tmp_path, more=_SHOP.format(**shop.settings), **news.settings) as box,
    ):
        lines = ["1,complaint@remote.test,yes", "2,ben@remote.test,yes", "3,eva@remote.test,no"]
        (tmp_path / "people.csv").write_text("\n".join(["external_id,address,opt_in", *lines]) + "\n")
        box.cli("recipient", "import", "people.csv", "--store", "main")
        box.cli("recipient", "opt-in", "1", "--store", "shop")
        box.cli("recipient", "opt-in", "3", "--store", "shop")
        box.start()
        box.plan("letter", "--store", "main")
        box.plan("offer", "--store", "shop")
        box.wait(
            lambda: ("1", "shop") in _wishes(box) and _wishes(box)["1", "shop"] == "out complaint",
            "the shop's complaint",
        )
        box.wait(lambda: _wishes(box)["1", "main"] == "out complaint", "the letter's complaint")
        assert box.states("letter") == {"1": "accepted", "2": "accepted", "3": "skipped not-opted-in"}
        assert box.states("offer") == {"1": "accepted", "2": "skipped not-opted-in", "3": "accepted"}
        assert _sent_to(news) == {"complaint@remote.test", "ben@remote.test"}
        assert _sent_to(shop) == {"complaint@remote.test", "eva@remote.test"}
        assert box.stop() == 0
        box.cli("activity", "create", "none", "--segment", "all", "--template", "spring", status=2)


def test_a_store_does_not_listen_to_anothers_bounces(tmp_path: Path) -> None:
    (tmp_path / "news").mkdir()
    with LedgerRelay(tmp_path / "news/ledger") as news, LedgerRelay(tmp_path / "shop.ledger") as shop:
        swapped = {"outbound": news.settings["outbound"], "inbound": shop.settings["inbound"]}
        other = {"outbound": shop.settings["outbound"], "inbound": news.settings["inbound"]}
        with Box(tmp_path, more=_SHOP.format(**other), **swapped) as box:
            box.people({"dead": "bounce@remote.test"})
            box.start()
            box.plan("letter", "--store", "main")
            dispositions = sa.select(tables.bounce.c.disposition)
            box.wait(lambda: bool(box.rows(dispositions)), "the bounce to come to the wrong mailbox")
            assert [row.disposition for row in box.rows(dispositions)] == ["quarantined"]
            assert box.states("letter") == {"dead": "accepted"}
            assert _wishes(box) == {("dead", "main"): "in import"}
            assert box.stop() == 0

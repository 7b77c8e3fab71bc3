"""Suppression by address and by domain: who gets nothing, what the ledger says, and how it is taken back."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from box import Box
from command import refused, run
from mailbound.database import suppressions, undoing
from mailbound.database.suppressions import Suppression
from mailbound.database.tables import change
from mailbound.errors import InputError
from world import COMMAND, NODE, NOW, World, mark, world

_FOR_GOOD = Suppression("spam trap")
_FOR_A_DAY = Suppression("their wish", NOW + timedelta(days=1))


def _suppress(here: World, what: str, why: Suppression = _FOR_GOOD, *, at: datetime = NOW) -> bool:
    return suppressions.suppress(here.connection, what, why, cause=COMMAND, now=at)


def _ledger(here: World) -> list[Any]:
    query = sa.select(change).where(change.c.kind == "suppression").order_by(change.c.id)
    return list(here.connection.execute(query))


@pytest.mark.parametrize("what", ["Anna@Example.com", "example.COM"])
def test_whoever_is_suppressed_is_skipped_and_the_rest_is_not(database_url: str, what: str) -> None:
    with world(database_url) as here:
        here.person("anna", address="anna@example.com")
        here.person("bert", address="bert@sub.example.com")
        assert _suppress(here, what)
        assert here.states(here.sending()) == {"anna": "skipped suppressed", "bert": "queued"}


def test_what_is_suppressed_before_the_mark_is_not_sent(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna", address="anna@example.com")
        (claimed,) = here.claim(here.sending())
        _suppress(here, "example.com")
        assert mark(here.connection, [claimed.id], node_id=NODE, now=NOW) == set()


def test_a_suppression_ends_by_itself_or_by_command(database_url: str) -> None:
    with world(database_url) as here:
        anna = here.person("anna", address="anna@example.com")
        address_id = here.connection.execute(
            sa.text("SELECT address_id FROM recipient WHERE id = :id"), {"id": anna}
        ).scalar_one()
        _suppress(here, "anna@example.com", _FOR_A_DAY)
        _suppress(here, "example.com")

        def why(days: int = 0) -> Suppression | None:
            return suppressions.of_address(here.connection, address_id, now=NOW + timedelta(days=days))

        assert why() == _FOR_A_DAY
        assert why(days=1) == _FOR_GOOD, "that of the domain stays"
        assert suppressions.unsuppress(here.connection, "example.com", cause=COMMAND, now=NOW)
        assert not suppressions.unsuppress(here.connection, "example.com", cause=COMMAND, now=NOW)
        assert why(days=1) is None


def test_the_ledger_tells_what_changed_and_nothing_else(database_url: str) -> None:
    with world(database_url) as here:
        assert _suppress(here, "example.com")
        assert not _suppress(here, "example.com")
        assert _suppress(here, "example.com", _FOR_A_DAY)
        suppressions.unsuppress(here.connection, "example.com", cause=COMMAND, now=NOW)
        lines = [(line.before, line.after) for line in _ledger(here)]
        assert lines == [
            ("", "spam trap"),
            ("spam trap", "their wish (until 2026-11-25T12:00:00+00:00)"),
            ("their wish (until 2026-11-25T12:00:00+00:00)", ""),
        ]


def test_a_line_is_taken_back_while_its_value_stands(database_url: str) -> None:
    with world(database_url) as here:
        _suppress(here, "example.com", _FOR_A_DAY)
        suppressions.unsuppress(here.connection, "example.com", cause=COMMAND, now=NOW)
        _suppress(here, "anna@example.org")
        first, second, third = _ledger(here)
        undone = undoing.undo(here.connection, [third, second, first], cause=COMMAND, now=NOW)
        assert [line.id for line in undone.restored] == [third.id, second.id, first.id]
        assert [line.undoes for line in _ledger(here)[3:]] == [third.id, second.id, first.id]
        assert suppressions.everything(here.connection) == []
        _suppress(here, "example.com")
        undone = undoing.undo(here.connection, [second], cause=COMMAND, now=NOW)
        assert [line.id for line in undone.overtaken] == [second.id]


@pytest.mark.parametrize("reason", ["spam trap", "trap (until noon)", "a\nb"])
@pytest.mark.parametrize("until", [None, NOW], ids=str)
def test_what_the_ledger_writes_it_reads(reason: str, until: datetime | None) -> None:
    why = Suppression(reason, until)
    assert Suppression.read(str(why)) == why


@pytest.mark.parametrize("what", ["", "no one@", "exa mple.com", "@example.com", "-.com", "nobody"])
def test_what_is_neither_an_address_nor_a_domain_is_refused(sqlite_url: str, what: str) -> None:
    with world(sqlite_url) as here, pytest.raises(InputError, match=r"^(?!.*postmaster)"):
        _suppress(here, what)


def test_the_commands_suppress_list_and_take_back(tmp_path: Path) -> None:
    with Box(tmp_path) as box:
        box.populate({"anna": "anna@example.com"})
        config = tmp_path / "config.toml"
        done = run("recipient", "suppress", "example.com", "--reason", "asked us", config=config)
        assert done.out == "example.com is suppressed for good\n"
        again = run("recipient", "suppress", "example.com", "--reason", "asked us", config=config)
        assert again.out == "example.com is suppressed for good, as before\n"
        run("recipient", "suppress", "bert@example.org", "--until", "in 2 weeks", config=config)
        listed = json.loads(run("recipient", "suppressed", "--json", config=config).out)
        assert [(row["what"], row["reason"]) for row in listed] == [
            ("bert@example.org", "operator"),
            ("example.com", "asked us"),
        ]
        assert "asked us" in run("recipient", "suppressed", config=config).out
        (shown,) = json.loads(run("recipient", "show", "anna", "--json", config=config).out)
        assert shown["suppressed"] == "asked us"
        assert run("recipient", "unsuppress", "example.com", config=config).out.endswith("any more\n")
        assert run("recipient", "unsuppress", "example.com", config=config).out.endswith("nor was it\n")
        run("recipient", "unsuppress", "bert@example.org", config=config)
        assert run("recipient", "suppressed", config=config).out == "nothing is suppressed\n"
        for words, said in {
            ("suppress", "anna@"): "no address",
            ("suppress", "example.com", "--until", "2020-01-01 00:00"): "is over",
            ("suppress", "example.com", "--reason", ""): "1 to 64 characters",
        }.items():
            assert said in refused("recipient", *words, config=config)

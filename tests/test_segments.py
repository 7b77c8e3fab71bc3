"""Segments: conditions and fixed lists, and the commands that make them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from mailbound.cli import recipient as recipient_command
from mailbound.cli import segment as command
from mailbound.database import segments
from mailbound.database.imports import BATCH
from mailbound.database.tables import recipient, segment, segment_member
from mailbound.errors import InputError
from people import NOW, People, people

SAMPLE = Path(__file__).parents[1] / "config.toml"
CONTENT = (
    "external_id,address,country,opt_in\n"
    "joe,joe@example.net,DE,yes\n"
    "ann,home@example.net,DE,no\n"
    "bob,home@example.net,AT,yes\n"
)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[People]:
    with people(database_url) as world:
        world.bring(CONTENT, tmp_path)
        yield world


def members(world: People, name: str) -> list[str]:
    with world.database.look() as connection:
        row = segments.find(connection, name)
        query = sa.select(recipient.c.external_id).select_from(segments.people()).where(segments.members(row))
        found = list(connection.execute(query.order_by(recipient.c.id)).scalars())
        assert segments.count(connection, row) == len(found)
        assert [row.external_id for row in segments.each(connection, row)] == found
        assert [row.external_id for row in segments.sample(connection, row, limit=2)] == found[:2]
    return found


def fill(world: People, name: str, *batches: list[str]) -> list[set[str]]:
    with world.database.begin() as connection:
        segment_id = segments.begin_list(connection, name, now=NOW)
        unknown = [segments.add(connection, segment_id, batch) for batch in batches]
        segments.end_list(connection, segment_id, name)
    return unknown


def test_a_condition_is_asked_anew_each_time(world, tmp_path):
    with world.database.begin() as connection:
        segments.create(connection, "german", "country = 'DE'", now=NOW)
    assert members(world, "german") == ["joe", "ann"]
    world.bring(CONTENT.replace("AT", "DE"), tmp_path)
    assert members(world, "german") == ["joe", "ann", "bob"]


def test_a_condition_may_speak_of_the_domain(world):
    with world.database.begin() as connection:
        segments.create(connection, "all", "domain = 'example.net' and external_id <> 'bob'", now=NOW)
    assert members(world, "all") == ["joe", "ann"]


def test_those_who_want_mail_are_counted_by_store(world):
    with world.database.begin() as connection:
        segments.create(connection, "german", "country = 'DE'", now=NOW)
        row = segments.find(connection, "german")
        wanted = {name: segments.count_opted_in(connection, row, id_) for name, id_ in world.stores.items()}
    assert wanted == {"*": 0, "main": 1, "outlet": 0}


def test_a_list_is_filled_by_external_id_or_address_and_says_whom_it_does_not_know(world):
    assert fill(world, "vip", ["joe", "nobody"], ["HOME@example.net", "joe", "no@example.net"]) == [
        {"nobody"},
        {"no@example.net"},
    ]
    assert members(world, "vip") == ["joe", "ann", "bob"]


def test_a_list_is_not_seen_before_it_is_filled_and_a_crash_leaves_nothing(world):
    with world.database.begin() as connection:
        segments.add(connection, segments.begin_list(connection, "vip", now=NOW), ["joe"])
        with pytest.raises(InputError, match="no segment 'vip'"):
            segments.find(connection, "vip")
    assert fill(world, "vip", ["ann"]) == [set()]
    assert members(world, "vip") == ["ann"]
    with world.database.look() as connection:
        assert len(connection.execute(sa.select(segment)).all()) == 1
        assert len(connection.execute(sa.select(segment_member)).all()) == 1


@pytest.mark.parametrize(
    ("name", "condition", "reason"),
    [
        pytest.param("taken", "true", "already", id="a taken name"),
        pytest.param(" ", "true", "printable", id="no name"),
        pytest.param("a\nb", "true", "printable", id="two lines"),
        pytest.param("x" * 65, "true", "printable", id="a long name"),
        pytest.param("x", "country = ", "column", id="a broken condition, with its position"),
    ],
)
def test_a_segment_that_cannot_be_made_says_why(world, name, condition, reason):
    with world.database.begin() as connection:
        segments.create(connection, "taken", "true", now=NOW)
        with pytest.raises(InputError, match=reason):
            segments.create(connection, name, condition, now=NOW)
        with pytest.raises(InputError, match="no segment"):
            segments.find(connection, "x")


# --- commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs `mailbound segment …` on a database of its own, with three people."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text(SAMPLE.read_text())
    (tmp_path / "people.csv").write_text(CONTENT)
    brought = CliRunner().invoke(recipient_command.app, ["import", "people.csv"], obj=config)
    assert brought.exit_code == 0

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command.app, arguments, obj=config)

    return run


def test_a_condition_is_created_counted_shown_and_listed(run):
    assert run("create", "german", "--where", "country = 'DE'").stdout == "segment german: 2 recipients\n"
    assert run("count", "german", "--store", "main").stdout == "2 recipients\n1 opted in for main\n"
    assert json.loads(run("count", "german", "--store", "*", "--json").stdout) == {
        "recipients": 2,
        "opted_in": 0,
    }
    told = json.loads(run("show", "german", "--limit", "1", "--json").stdout)
    assert (told["recipients"], told["condition"]) == (2, "country = 'DE'")
    assert [person["external_id"] for person in told["first"]] == ["joe"]
    assert "ann" in run("show", "german").stdout
    assert [row["name"] for row in json.loads(run("list", "--json").stdout)] == ["german"]
    assert "country = 'DE'" in run("list").stdout


def test_a_list_reads_the_first_column_and_reports_by_line(run, tmp_path):
    lines = ["external_id;why", "joe;x", "", '"open;x', "nobody;y", *["ann"] * BATCH, "Home@Example.net;z"]
    (tmp_path / "vip.csv").write_text("\n".join(lines))
    result = run("create", "vip", "--import", "vip.csv")
    assert result.stdout == "segment vip: 3 recipients\n"
    assert "line 4: a quotation mark is not closed\nline 5: there is no recipient 'nobody'" in result.stderr
    assert "2 lines of no use: vip.csv.faults.csv" in result.stderr
    assert "(a fixed list)" in run("list").stdout


@pytest.mark.parametrize("options", [(), ("--where", "true", "--import", "x")], ids=["neither", "both"])
def test_a_segment_is_a_condition_or_a_list(run, options):
    assert "either --where CONDITION or --import FILE" in str(run("create", "x", *options).exception)

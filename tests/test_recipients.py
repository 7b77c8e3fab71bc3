"""Recipients: finding, reinstating and erasing them, and the commands that do it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

import rows
from mailbound import packing
from mailbound.cli import recipient as command
from mailbound.database import erasing, raw_mail, recipients
from mailbound.database.tables import (
    address,
    bounce,
    change,
    delivery,
    inbound_mail,
    inbound_pack,
    inbound_raw,
    metadata,
    opt_in,
    recipient,
    recipient_status,
    segment_member,
    suppression,
)
from mailbound.errors import InputError
from mailbound.lifecycle import DeliveryState
from mailbound.model import RecipientStatus, Source
from people import DAY, NOW, People, people

HEAD = "external_id,address,name,opt_in\n"
SAMPLE = Path(__file__).parents[1] / "config.toml"


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[People]:
    """Return a database with Joe alone, and Ann and Bob who share an address."""
    with people(database_url) as world:
        world.bring(
            f"{HEAD}joe,Joe@example.net,Joe,yes\nann,home@example.net,Ann,yes\nbob,home@example.net,Bob,yes\n",
            tmp_path,
            now=NOW - 9 * DAY,
        )
        yield world


def erase(world: People, who: str, now: datetime = NOW) -> None:
    with world.database.begin() as connection:
        erasing.erase(connection, recipients.find(connection, who).id, who="alice", now=now)


def count(world: People, table: sa.Table) -> int:
    with world.database.look() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


# --- finding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["joe", "Joe@example.net", "JOE@EXAMPLE.NET"])
def test_a_person_is_found_by_external_id_or_address(world, who):
    assert world.find(who).external_id == "joe"


def test_an_address_that_two_share_is_not_enough_and_both_are_named(world):
    with pytest.raises(InputError, match="ann, bob"):
        world.find("home@example.net")


def test_nobody_is_found_by_what_is_neither(world):
    with pytest.raises(InputError, match="there is no recipient 'x'"):
        world.find("x")


# --- reinstating ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["ann", "home@example.net"])
def test_reinstating_gives_the_address_and_all_its_people_back_what_a_bounce_took(world, who):
    world.die("ann", now=NOW - DAY)
    world.wish("bob", receive=False, source=Source.COMPLAINT)
    with world.database.begin() as connection:
        done = recipients.reinstate(connection, recipients.address_id(connection, who), who="alice", now=NOW)
    assert done == (True, 1)
    assert world.status("ann") is RecipientStatus.DELIVERABLE
    assert world.wishes("ann")["main"] == (True, "operator", NOW)
    assert world.wishes("bob")["main"][:2] == (False, "complaint")
    assert world.ledger("status")[-1] == ("undeliverable (no-such-user)", "deliverable", "command", "alice")
    assert world.ledger("opt_in")[-1] == ("out (hard_bounce)", "in (operator)", "command", "alice")


def test_reinstating_what_is_well_changes_nothing(world):
    lines = count(world, change)
    with world.database.begin() as connection:
        done = recipients.reinstate(connection, world.find("joe").address_id, who="alice", now=NOW)
    assert (done, count(world, change)) == ((False, 0), lines)


def test_an_address_that_nobody_has_any_more_can_be_reinstated(world, tmp_path):
    world.die("joe")
    world.bring("external_id,address\njoe,new@example.net\n", tmp_path)
    with world.database.begin() as connection:
        address_id = recipients.address_id(connection, "joe@example.net")
        assert recipients.reinstate(connection, address_id, who="", now=NOW) == (True, 0)
    with (
        world.database.look() as connection,
        pytest.raises(InputError, match="no address 'gone@"),
    ):
        recipients.address_id(connection, "gone@example.net")


# --- erasing --------------------------------------------------------------------------------------------------


def mailed(world: People, *names: str) -> None:
    """Let each have a delivery that bounced, with the mail that said so."""
    people = [world.find(who) for who in names]
    mails: list[tuple[int, bytes]] = []
    with world.database.begin() as connection:
        put = rows.World(connection)
        run_id = put.run(put.activity("spring"))
        for row in people:
            text = row.key
            domain_id = put.domain(text.partition("@")[2])
            about = {"recipient_id": row.id, "address_id": row.address_id, "domain_id": domain_id}
            sent = {"run_id": run_id, "state": DeliveryState.BOUNCED, "reply": f"550 <{text}>: unknown"}
            delivery_id = put.insert(delivery, **about, **sent)
            found = connection.execute(sa.select(delivery).where(delivery.c.id == delivery_id)).one()
            put.say(found, diagnostic=f"550 <{text}>: unknown", address=text)
            mail_id = connection.execute(sa.select(sa.func.max(inbound_mail.c.id))).scalar_one()
            mails.append((mail_id, text.encode()))
            named = inbound_mail.update().where(inbound_mail.c.id == mail_id)
            connection.execute(named.values(subject=f"failed: {text}"))
        numbers, contents = zip(*mails, strict=True)
        raw_mail.keep(connection, numbers, contents, packing.together(contents))


def traces(world: People, text: str) -> set[str]:
    """Return the columns of all tables in which `text` stands."""
    found = set()
    with world.database.look() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)).mappings():
                for name, value in row.items():
                    said = (
                        zlib.decompress(value)
                        if isinstance(value, bytes) and table is inbound_pack
                        else value
                    )
                    found |= {f"{table.name}.{name}"} if text in str(said).lower() else set()
    return found


def test_erasing_leaves_no_trace_of_a_person_but_keeps_the_counts(world, tmp_path):
    mailed(world, "joe", "ann")
    world.bring("external_id,address\njoe,joe.new@example.net\n", tmp_path, now=NOW - DAY)
    before = {table.name: count(world, table) for table in (delivery, bounce, inbound_mail)}
    assert "change.before" in traces(world, "joe@example")
    erase(world, "joe")
    assert traces(world, "joe@") | traces(world, "joe.new@") == set()
    with world.database.look() as connection:
        assert connection.execute(sa.select(recipient).where(recipient.c.external_id == "joe")).all() == []
    assert {table.name: count(world, table) for table in (delivery, bounce, inbound_mail)} == before
    assert count(world, inbound_raw) == 1  # of Ann
    assert "bounce.diagnostic" in traces(world, "home@example.net")
    assert world.ledger("suppression") == [("", "erased", "command", "alice")]


def test_an_address_that_somebody_shares_stays_theirs(world, tmp_path):
    erase(world, "ann")
    assert world.find("home@example.net").external_id == "bob"
    summary = world.bring(f"{HEAD}ann,home@example.net,Ann,yes\nbob,home@example.net,Bob,yes\n", tmp_path)
    assert (summary.counts.erased, summary.counts.unchanged) == (1, 1)
    erase(world, "bob")
    assert traces(world, "home@") == set()


@pytest.mark.parametrize(
    "row",
    [
        pytest.param("joe,other@example.net,Joe,yes", id="the same person with another address"),
        pytest.param("joe2,JOE@example.net,Joe,yes", id="the same address by another name"),
        pytest.param("joe2,joe.old@example.net,Joe,yes", id="an address that they had before"),
        pytest.param("ann,joe@example.net,Ann,yes", id="somebody else who takes the address"),
    ],
)
def test_no_import_brings_an_erased_person_back(world, tmp_path, row):
    world.bring(f"{HEAD}joe,joe.old@example.net,Joe,\n", tmp_path)
    world.bring(f"{HEAD}joe,joe@example.net,Joe,\n", tmp_path)
    erase(world, "joe")
    names = world.names()
    summary = world.bring(f"{HEAD}{row}\nnew,new@example.net,New,yes\n", tmp_path)
    assert (summary.counts.erased, summary.counts.new) == (1, 1)
    assert world.names() == [*names, "new"]
    assert traces(world, "joe") == set()


def test_erasing_takes_wishes_and_memberships_and_an_operators_suppression_becomes_a_hash(world):
    joe = world.find("joe")
    with world.database.begin() as connection:
        segment_id = rows.World(connection).segment_id
        connection.execute(segment_member.insert().values(segment_id=segment_id, recipient_id=joe.id))
        connection.execute(
            suppression.insert().values(address_id=joe.address_id, reason="asked", created_at=NOW)
        )
    erase(world, "joe")
    with world.database.look() as connection:
        for table in (opt_in, segment_member):
            assert connection.execute(sa.select(table).where(table.c.recipient_id == joe.id)).all() == []
        kept = connection.execute(sa.select(suppression)).all()
        assert [(row.address_id, row.reason) for row in kept] == [(None, "erased")] * 2
        key = connection.execute(sa.select(address.c.key).where(address.c.id == joe.address_id)).scalar()
    assert key == f"erased:{joe.address_id}"


def test_the_status_of_an_erased_address_is_still_counted(world):
    world.die("joe")
    erase(world, "joe")
    assert count(world, recipient_status) == 1


# --- commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs `mailbound recipient …` on a database of its own, with three people."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text(SAMPLE.read_text())

    def run(*arguments: str, fed: str | None = None) -> Result:
        return CliRunner().invoke(command.app, arguments, obj=config, input=fed)

    content = (
        f"{HEAD}joe,joe@example.net,Joe,yes\nann,home@example.net,Ann,no\nbob,home@example.net,,no\nx,x,,\n"
    )
    result = run("import", "-", "--store", "main", fed=content)
    assert result.exit_code == 0
    assert result.stdout == "4 read, 3 new, 1 faulty, 1 opted in, 2 opted out\n"
    assert "line 5: 'x' is no address" in result.stderr
    assert "1 faulty row: stdin.faults.csv" in result.stderr
    return run


def test_an_import_tells_machines_in_json(run, tmp_path):
    (tmp_path / "people.jsonl").write_text(
        '{"external_id": "joe", "email": "joe@example.net", "name": "J"}\n'
    )
    told = json.loads(run("import", "people.jsonl", "--json").stdout)
    assert (told["read"], told["changed"], told["faults"], told["faults_file"]) == (
        1,
        1,
        0,
        "people.jsonl.faults.csv",
    )


def test_an_import_of_nothing_but_faults_fails(run):
    result = run("import", "-", fed="external_id,address\n1,x\n")
    assert isinstance(result.exception, InputError)


def test_showing_a_person_as_text_and_as_json(run):
    text = run("show", "joe").stdout
    assert "joe@example.net" in text
    assert "in (import)" in text
    [told] = json.loads(run("show", "joe@example.net", "--json").stdout)
    assert (told["status"], told["opt_ins"][0]["receive"]) == ("deliverable", True)
    assert told["changes"][0]["after"] == "in (import)"


def test_showing_an_address_shows_all_who_share_it(run):
    people = json.loads(run("show", "home@example.net", "--json").stdout)
    assert [person["external_id"] for person in people] == ["ann", "bob"]


def test_opting_in_and_out_is_the_operators_word(run):
    assert run("opt-out", "joe", "--store", "main").stdout == "joe is opted out for main\n"
    assert run("opt-out", "joe", "--store", "main").stdout == "joe is opted out for main, as before\n"
    assert run("opt-in", "joe", "--store", "*").stdout == "joe is opted in for *\n"
    [told] = json.loads(run("show", "joe", "--json").stdout)
    assert [(each["store"], each["receive"], each["source"]) for each in told["opt_ins"]] == [
        ("*", True, "operator"),
        ("main", False, "operator"),
    ]


def test_an_unknown_store_is_named_with_those_there_are(run):
    result = run("opt-in", "joe", "--store", "nope")
    assert "there is no store 'nope'; there are: *, main" in str(result.exception)


def test_reinstating_says_what_it_did(run):
    assert run("reinstate", "joe").stdout == "the address was deliverable already; opt-ins given back: 0\n"


def test_erasing_asks_first_and_without_a_terminal_wants_to_be_told(run):
    result = run("erase", "joe", fed="y\n")
    assert "say --yes" in str(result.exception)
    assert run("show", "joe").exit_code == 0
    assert run("erase", "joe", "--yes").stdout == "joe is erased\n"
    assert "there is no recipient 'joe'" in str(run("show", "joe").exception)

"""`mailbound bounce quarantine`, `accept` and `drop`: what nothing shows to be genuine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import command
from box import Box
from mailbound.cli import quarantining
from mailbound.database import inbound_mail, quarantine, schema
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Understood
from mailbound.errors import InputError
from mailbound.model import Action, Kind
from servers import need
from test_quarantine import forged, mail
from world import NOW, World

WISH = {"kind": Kind.UNSUBSCRIBE, "action": Action.UNSUBSCRIBED}


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """Give a configuration with a forged bounce, one about nobody, and a wish without a token."""
    with Box(folder) as made:
        schema.upgrade(made.database)
        with made.database.begin() as connection:
            here = World(connection)
            for name in ("anna", "bert"):
                here.person(name)
            here.send(here.sending())
            forged(here, mail=mail(here, 3072))
            forged(here, "nobody@example.org", mail=mail(here, 2048))
            forged(here, "bert@example.org", mail=mail(here), **WISH)
        yield made.folder / "config.toml"


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """Return a configuration to change what it has."""
    with _made(tmp_path) as path:
        yield path


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a configuration to be looked at only."""
    with _made(tmp_path_factory.mktemp("quarantine")) as path:
        yield path


def left(config: Path) -> list[int]:
    reports = command.run("bounce", "quarantine", "--json", config=config).json["reports"]
    return sorted(each["id"] for each in reports)


def test_the_list_says_whom_each_would_be_about(untouched: Path) -> None:
    lines = command.run("bounce", "quarantine", config=untouched).out.splitlines()
    assert [re.split(r"\s{2,}", line.strip())[2:] for line in lines[1:4]] == [
        ["bert@example.org", "unsubscribed", "bert"],
        ["nobody@example.org", "5.1.1 no-such-user", "nobody we mailed"],
        ["anna@example.org", "5.1.1 no-such-user", "anna, spring"],
    ]
    assert lines[4] == "3 reports, 6.0 KiB of mail; 100MiB and 14d are kept."


def test_machines_get_reports_and_room(untouched: Path) -> None:
    found = command.run("bounce", "quarantine", "--limit", "1", "--json", config=untouched).json
    assert found["room"] == {"reports": 3, "octets": 6120}
    (report,) = found["reports"]
    assert (report["kind"], report["about"]["external_id"]) == ("unsubscribe", "bert")


def test_wishes_are_found_among_any_number_of_reports(config: Path) -> None:
    (wish,) = command.run("bounce", "quarantine", "--wishes", "--json", config=config).json["reports"]
    assert wish["id"] == 3
    command.run("bounce", "accept", "3", config=config)
    listed = command.run("bounce", "quarantine", "--wishes", config=config)
    assert listed.out == "nobody asks to be unsubscribed there\n"


def test_what_is_accepted_is_decided_and_can_be_taken_back(config: Path) -> None:
    out = command.run("bounce", "accept", "1", "3", config=config).out.splitlines()
    assert out == [
        "id  becomes  why",
        " 1  applied  no-such-user: the address is dead",
        " 3  applied  the recipient unsubscribed: out for this store",
        "2 reports accepted",
    ]
    assert left(config) == [2]
    assert command.run("bounce", "undo", "1", "3", config=config).out.endswith(
        "3 taken back, 0 left as they are\n"
    )


def test_a_dry_run_accepts_nothing(untouched: Path) -> None:
    out = command.run("bounce", "accept", "1", "--dry-run", config=untouched).out
    assert out.endswith("1 report would be accepted; nothing was done\n")
    decided = command.run("bounce", "accept", "1", "--dry-run", "--json", config=untouched).json
    assert decided == [{"id": 1, "disposition": "applied", "why": "no-such-user: the address is dead"}]
    assert left(untouched) == [1, 2, 3]


def test_one_that_cannot_be_accepted_keeps_all_in_quarantine(untouched: Path) -> None:
    said = command.refused("bounce", "accept", "1", "2", config=untouched)
    assert said == "report 2 speaks of nobody whom we mailed within 30 days"
    assert left(untouched) == [1, 2, 3]


@pytest.mark.parametrize("words", [[], ["1", "--all"]], ids=["nothing", "both"])
def test_what_shall_be_dropped_must_be_said(untouched: Path, words: list[str]) -> None:
    assert command.refused("bounce", "drop", *words, config=untouched) == (
        "say which: numbers of reports, or --all"
    )


def test_what_is_dropped_is_gone(config: Path) -> None:
    assert command.run("bounce", "drop", "2", config=config).out == "1 report dropped\n"
    assert "undone: dropped by " in command.run("bounce", "show", "2", config=config).out
    assert command.refused("bounce", "show", "2", "--raw", config=config).startswith("mail 2 is not kept")
    assert command.run("bounce", "drop", "--all", config=config).out.splitlines() == [
        "1 report dropped",
        "1 wish to unsubscribe is left (mailbound bounce quarantine --wishes)",
    ]
    command.run("bounce", "drop", "3", config=config)
    assert command.run("bounce", "quarantine", config=config).out == "the quarantine is empty\n"


_TWO_AT_ONCE = (
    "from mailbound import cli; from mailbound.cli import quarantining; quarantining._AT_ONCE = 2; cli.main()"
)


def test_a_drop_that_was_killed_is_finished_by_the_next(config: Path) -> None:
    with closing(Database(f"sqlite:///{config.parent}/mailbound.db")) as database, database.begin() as made:
        here = World(made)
        for _ in range(3):
            forged(here, mail=mail(here, 100))
    killed = "inject=fdatasync:signal=SIGKILL:when=3"  # in the commit of its second transaction, of three
    strace = [need("strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", killed]
    drop = [sys.executable, "-c", _TWO_AT_ONCE, "--config", str(config), "bounce", "drop", "--all"]
    environment = {**os.environ, "RELAY_PASSWORD": "secret", "MAILBOX_PASSWORD": "secret"}
    subprocess.run([*strace, *drop], env=environment, capture_output=True, check=False)
    kept = len(left(config)) - 1  # the wish stays
    assert kept in {1, 3}, "some are gone whole"
    said = command.run("bounce", "drop", "--all", config=config).out.splitlines()
    assert said[0] == f"{kept} report{'s' * (kept > 1)} dropped"


def test_what_was_settled_meanwhile_keeps_no_other_from_being_dropped(config: Path) -> None:
    command.run("bounce", "accept", "1", config=config)
    with closing(Database(f"sqlite:///{config.parent}/mailbound.db")) as database:
        with pytest.raises(InputError, match="report 1 is not in quarantine but applied"):
            quarantining._drop(database, [1, 2], quarantine.drop, lenient=False)
        assert quarantining._drop(database, [1, 2], quarantine.drop, lenient=True) == 1
    assert left(config) == [3]


def test_the_doctor_says_how_full_it_is(untouched: Path) -> None:
    found = command.run("doctor", "--json", config=untouched).json
    assert [(each["state"], each["text"]) for each in found if each["about"] == "quarantine"] == [
        ("good", "3 reports, 0% of its budget; see `mailbound bounce quarantine`")
    ]


def test_the_report_counts_what_a_person_has_to_read(untouched: Path) -> None:
    lines = command.run("report", "bounces", "--since", "2026-11-01", config=untouched).out.splitlines()
    assert "1 wish to unsubscribe without a token of ours (mailbound bounce quarantine --wishes)" in lines
    found = command.run("report", "bounces", "--since", "2026-11-01", "--json", config=untouched).json
    assert found["letters"] == {"wishes": 1, "ordinary": 0, "unrecognised": 0}


# --- mail that nobody could make anything of ---------------------------------------------------------------


@pytest.fixture
def puzzled(tmp_path: Path) -> Iterator[Path]:
    """Return a configuration with two mails that were not understood, one that is poison, and one by a person."""
    with Box(tmp_path, more='budget = "1KiB"\nlargest = "1KiB"\nquarantine_budget = "1B"') as made:
        schema.upgrade(made.database)
        with made.database.begin() as connection:
            here = World(connection)
            strange, stranger, person, poison = (mail(here, 300) for _ in range(4))
            kinds = {strange: Kind.UNRECOGNISED, stranger: Kind.UNRECOGNISED, person: Kind.ORDINARY}
            known = [Understood(number, kind, "hello", "") for number, kind in kinds.items()]
            inbound_mail.settle(connection, known, now=NOW)
            inbound_mail.poison(connection, [poison], why="reading it failed 2 times")
        yield made.folder / "config.toml"


def puzzles(config: Path) -> list[str]:
    found = command.run("doctor", "--json", config=config).json
    return [each["text"] for each in found if each["about"] == "inbound"]


def test_what_was_not_understood_is_shown_until_it_is_dropped(puzzled: Path) -> None:
    assert puzzles(puzzled) == [
        "1 mail could not be read; see `mailbound bounce list --mail`",
        "2 mails not understood; see `mailbound bounce list --kind unrecognised`",
    ]
    assert command.run("bounce", "drop", "--mail", "1", config=puzzled).out == "1 mail dropped\n"
    assert puzzles(puzzled)[1] == "1 mail not understood; see `mailbound bounce list --kind unrecognised`"
    listed = command.run("bounce", "list", "--kind", "unrecognised", "--json", config=puzzled).json
    assert [each["id"] for each in listed] == [2]
    assert command.run("bounce", "drop", "--mail", "--all", config=puzzled).out == "2 mails dropped\n"
    assert puzzles(puzzled) == []
    assert [
        each["id"] for each in command.run("bounce", "list", "--mail", "--json", config=puzzled).json
    ] == [3]


def test_the_doctor_says_when_there_is_no_room_for_more(puzzled: Path) -> None:
    with closing(Database(f"sqlite:///{puzzled.parent}/mailbound.db")) as database:
        for size, share in ((600, "88%"), (300, "117%; fetching has stopped")):
            with database.begin() as connection:
                mail(World(connection), size)
            told = puzzles(puzzled)[-1].partition("takes ")[2]
            assert told.replace(" of the budget for raw mail", "") == share


@pytest.mark.parametrize(
    ("number", "said"),
    [("3", "mail 3 was understood, as ordinary; it goes by itself"), ("9", "mail 9 is not kept; ")],
)
def test_other_mail_is_not_dropped(puzzled: Path, number: str, said: str) -> None:
    assert command.refused("bounce", "drop", "--mail", number, config=puzzled).startswith(said)


def test_the_doctor_counts_who_asks_to_be_left_alone_until_that_is_settled(config: Path) -> None:
    wish = [
        "1 mail asking to unsubscribe without a token of ours; see `mailbound bounce quarantine --wishes`"
    ]
    assert puzzles(config) == wish
    command.run("bounce", "accept", "3", config=config)
    assert puzzles(config) == []

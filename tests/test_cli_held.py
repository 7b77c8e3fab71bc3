"""`mailbound bounce held`, `release` and `discard`: what waits for an operator, and what becomes of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import command
from box import Box
from mailbound.database import schema
from mailbound.model import Evidence
from servers import need
from test_watch import FULL, Stage

LONG = "550 5.1.1 <{}>: Recipient address rejected: User unknown in virtual mailbox table"


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """Give a configuration with five bounces in a hold, and one that is held since their run halted."""
    with Box(folder) as made:
        schema.upgrade(made.database)
        stage = Stage(made.database)
        stage.say(0, 1, 2, 3, 4, text=LONG)
        stage.look()
        stage.say(5, verdict=FULL, text="full")
        stage.say(6, evidence=Evidence.UNSIGNED)
        yield made.folder / "config.toml"


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """Return a configuration to change what it has."""
    with _made(tmp_path) as path:
        yield path


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a configuration to be looked at only."""
    with _made(tmp_path_factory.mktemp("held")) as path:
        yield path


def dispositions(config: Path) -> list[str]:
    return [
        each["disposition"] for each in reversed(command.run("bounce", "list", "--json", config=config).json)
    ]


def test_what_is_held_is_shown_by_why(untouched: Path) -> None:
    out = command.run("bounce", "held", config=untouched).out
    first, second, end = out.split("\n\n")
    assert first.splitlines() == [
        "hold 1: one text",
        "why   5 of 10 deliveries failed for good with one text",
        "text  550 5.1.1 someone recipient address rejected user unknown in virtual mailbox table",
        "run   1 of spring",
        "held  5 bounces",
        "came  2026-11-24 12:00:00Z",
        "look  mailbound bounce list --held --hold 1",
    ]
    assert second.startswith("since run 1 halted\n")
    assert "6 bounces held" in end


def test_the_groups_lead_to_their_bounces(untouched: Path) -> None:
    for look, count in (("--hold 1", 5), ("--run 1", 6)):
        found = command.run("bounce", "list", "--held", *look.split(), "--json", config=untouched).json
        assert {each["disposition"] for each in found} == {"held"}
        assert len(found) == count


def test_machines_get_the_groups(untouched: Path) -> None:
    groups = command.run("bounce", "held", "--json", config=untouched).json
    assert [(group["hold"], group["trait"], group["bounces"], group["people"]) for group in groups] == [
        (1, "text", 5, 5),
        (None, "halt", 1, 1),
    ]


@pytest.mark.parametrize(
    ("which", "count"), [(["--hold", "1"], 5), (["--run", "1"], 6), (["--all"], 6), (["1", "3"], 2)]
)
def test_a_dry_run_shows_all_and_changes_nothing(untouched: Path, which: list[str], count: int) -> None:
    before = dispositions(untouched)
    for verb in ("release", "discard"):
        done = command.run("bounce", verb, *which, "--dry-run", "--json", config=untouched).json
        assert (len(done["bounces"]), done["changed"]) == (count, False)
        assert (
            command.run("bounce", verb, *which, "--dry-run", config=untouched)
            .out.splitlines()[-1]
            .startswith(f"{count} bounces would be {verb}{'d' if verb == 'release' else 'ed'}")
        )
    assert dispositions(untouched) == before


def test_a_release_is_applied_once_and_taken_back_whole(config: Path) -> None:
    said = command.run("bounce", "release", "--hold", "1", config=config).out.splitlines()
    assert said[1].split(maxsplit=3) == ["1", "p0@d0.test", "applied", "no-such-user: the address is dead"]
    assert said[-1] == "5 bounces released, and 5 recipients changed"
    assert dispositions(config) == ["applied"] * 5 + ["held", "quarantined"]
    assert "nothing like that is held" in command.refused("bounce", "release", "--hold", "1", config=config)
    undone = command.run("bounce", "undo", "--hold", "1", config=config).out
    assert undone.splitlines()[-1] == "10 taken back, 0 left as they are"
    assert dispositions(config)[:5] == ["undone"] * 5
    assert "was taken back already" in command.refused("bounce", "undo", "--hold", "1", config=config)


_TWO_AT_ONCE = (
    "from mailbound import cli; from mailbound.cli import holding; holding._AT_ONCE = 2; cli.main()"
)


def test_a_release_that_was_killed_is_finished_by_the_next(config: Path) -> None:
    killed = "inject=fdatasync:signal=SIGKILL:when=3"  # in the commit of its second transaction, of three
    strace = [need("strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", killed]
    release = [
        sys.executable,
        "-c",
        _TWO_AT_ONCE,
        "--config",
        str(config),
        "bounce",
        "release",
        "--hold",
        "1",
    ]
    environment = {**os.environ, "RELAY_PASSWORD": "secret", "MAILBOX_PASSWORD": "secret"}
    subprocess.run([*strace, *release], env=environment, capture_output=True, check=False)
    done = dispositions(config).count("applied")
    assert done % 2 == 0, "some are done whole"
    assert 0 < done < 5
    said = command.run("bounce", "release", "--hold", "1", config=config).out.splitlines()
    assert said[-1].startswith(f"{5 - done} bounce")
    assert dispositions(config)[:5] == ["applied"] * 5
    undone = command.run("bounce", "undo", "--hold", "1", config=config).out
    assert undone.splitlines()[-1] == "10 taken back, 0 left as they are", "each had its effects once"


def test_many_are_told_of_by_what_became_of_them(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailbound.cli.held_views._MANY", 2)
    lines = command.run("bounce", "release", "--all", config=config).out.splitlines()
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[:-1]] == [
        ["bounces", "become", "why"],
        ["5", "applied", "no-such-user: the address is dead"],
        ["1", "noted", "soft: 1 of 5"],
    ]


def test_what_is_discarded_says_who_did_it(config: Path) -> None:
    assert command.run("bounce", "discard", "--all", config=config).out == "6 bounces discarded\n"
    assert dispositions(config) == ["undone"] * 6 + ["quarantined"]
    assert "undone: discarded by " in command.run("bounce", "show", "1", config=config).out
    assert command.run("bounce", "held", config=config).out == "nothing is held\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say which: numbers of bounces, --hold, --run or --all"),
        (["1", "--all"], "say which"),
        (["99"], "there is no bounce 99"),
        (["7"], "bounce 7 is not held but quarantined: nothing shows that it is genuine"),
        (["--hold", "9"], "nothing like that is held"),
    ],
)
@pytest.mark.parametrize("verb", ["release", "discard"])
def test_what_cannot_be_meant_is_refused(untouched: Path, verb: str, words: list[str], said: str) -> None:
    assert command.refused("bounce", verb, *words, config=untouched).startswith(said)


def test_resuming_decides_what_the_halt_held_and_tells_of_the_rest(config: Path) -> None:
    said = command.run("activity", "resume", "spring", config=config).out.splitlines()
    assert said == [
        "run 1 of spring sends again",
        "5 bounces of it held still; see `mailbound bounce held`",
    ]
    assert dispositions(config) == ["held"] * 5 + ["noted", "quarantined"]


def test_cancelling_leaves_mass_bounces_to_the_operator(config: Path) -> None:
    command.run("activity", "cancel", "spring", config=config)
    assert dispositions(config) == ["held"] * 5 + ["undone", "quarantined"]


def test_the_doctor_and_the_report_tell_of_them(untouched: Path) -> None:
    found = command.run("doctor", "--json", config=untouched).json
    assert [(each["about"], each["state"]) for each in found if "bounce held`" in each["text"]] == [
        ("hold 1", "fault"),
        ("run 1", "warning"),
    ]
    out = command.run("report", "bounces", "--since", "2026-11-01", config=untouched).out
    assert "6 held until an operator decides (mailbound bounce held)" in out

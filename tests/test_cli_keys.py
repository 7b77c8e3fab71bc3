"""`mailbound config keys` and `rotate-key`, and what the doctor says of how bounces prove themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import command
from box import Box
from mailbound.database import schema
from mailbound.model import Evidence
from test_bounces import record
from world import NOW, World


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """Return a box whose store sent something to a dozen people."""
    with Box(tmp_path) as made:
        schema.upgrade(made.database)
        with made.database.begin() as connection:
            here = World(connection)
            for number in range(12):
                here.person(f"p{number}")
            here.send(here.sending())
        yield made


@pytest.fixture
def path(box: Box) -> Path:
    """Return its configuration."""
    return box.folder / "config.toml"


def states(path: Path) -> dict[int, str]:
    return {each["id"]: each["state"] for each in command.run("config", "keys", "--json", config=path).json}


def test_keys_are_listed_rotated_and_revoked(path: Path) -> None:
    assert command.run("config", "keys", config=path).out == "there is no key yet; the first run makes one\n"
    said = command.run("config", "rotate-key", config=path).out
    assert said == "key 1 signs from the next run on; those before it still verify\n"
    assert states(path) == {1: "signs", 0: "verifies"}
    said = command.run("config", "rotate-key", "--revoke", "1", "--yes", config=path).out
    assert said == "key 1 is revoked, and what it signed is forged; key 2 signs\n"
    lines = command.run("config", "keys", config=path).out.splitlines()
    assert lines[0].split() == ["key", "state", "made", "age", "runs", "last", "run"]
    assert [line.split()[:2] for line in lines[1:]] == [["2", "signs"], ["1", "revoked"], ["0", "verifies"]]
    assert lines[3].endswith("1  2026-11-24 12:00:00Z")


def test_no_secret_is_shown(path: Path) -> None:
    command.run("config", "rotate-key", config=path)
    assert "secret" not in command.run("config", "keys", "--json", config=path).out


def test_nothing_is_revoked_without_a_yes(path: Path) -> None:
    command.run("config", "rotate-key", config=path)
    said = command.refused("config", "rotate-key", "--revoke", "0", config=path)
    assert said == "nobody is there to confirm this; say --yes"
    assert states(path) == {1: "signs", 0: "verifies"}
    said = command.refused("config", "rotate-key", "--revoke", "9", "--yes", config=path)
    assert said.startswith("there is no key 9")


def evidence(path: Path) -> tuple[str, str]:
    found = command.run("doctor", "--json", config=path).json
    return next((each["state"], each["text"]) for each in found if each["about"] == "main evidence")


def reported(box: Box, count: int, *carriers: str, start: int = 0) -> None:
    with box.database.begin() as connection:
        here = World(connection)
        for number in range(start, start + count):
            mail_id = _mail(here, number)
            record(
                here,
                number + 1,
                at=max(NOW, datetime.now(UTC)),
                evidence=Evidence.SIGNED,
                carriers=carriers,
                mail_id=mail_id,
            )


def _mail(here: World, number: int) -> int:
    from test_quarantine import mail

    return mail(here, number)


def test_the_doctor_says_what_brings_tokens_back(box: Box, path: Path) -> None:
    assert evidence(path) == ("good", "no report yet; tokens travel in return-path, envid and message-id")
    reported(box, 2, "return-path", "envid")
    reported(box, 1, "message-id", start=2)
    assert evidence(path) == (
        "good",
        "of 3 signed reports in 30 days: return-path in 2, envid in 2, message-id in 1",
    )


def test_the_doctor_doubts_a_return_path_that_never_comes_back(box: Box, path: Path) -> None:
    reported(box, 10, "message-id")
    state, text = evidence(path)
    assert state == "warning"
    assert text.startswith(
        "of 10 signed reports in 30 days: return-path in 0, envid in 0, message-id in 10; does mail"
    )
    assert "+TOKEN@" in text

"""What the search for bad mail rests on, and what it found."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import fuzz_reading
import mutations
import reading_properties
from mailbound.model import Kind
from mailbound.reading import RecipientReport, Report, structure

_SECONDS = 20.0  # far off: a mail that takes longer never ends

_SEEDS = reading_properties.seeds()


@pytest.mark.parametrize("path", sorted(reading_properties.FOLDER.rglob("*.eml")), ids=lambda path: path.stem)
def test_a_mail_has_the_properties(path) -> None:
    reading_properties.check(path.read_bytes(), seconds=_SECONDS)


def test_a_mail_of_the_simulator_has_the_properties() -> None:
    for mail in reading_properties.simulated():
        reading_properties.check(mail, seconds=_SECONDS)


@pytest.mark.parametrize("mutation", dict.fromkeys(mutations.MUTATIONS), ids=lambda each: each.__name__)
def test_a_changed_mail_has_the_properties(mutation) -> None:
    chance = random.Random(mutation.__name__)
    changed = [mutation(chance.choice(_SEEDS), chance, _SEEDS) for _ in range(50)]
    assert not set(changed) <= set(_SEEDS)
    for mail in changed:
        reading_properties.check(mail, seconds=_SECONDS)


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        ({"recipients": ("eve@x.example",)}, "does not stand"),
        ({"subject": "a\0b"}, "NUL"),
        ({"subject": "\ud800"}, "surrogate"),
        ({"why": ""}, "why"),
    ],
)
def test_a_report_without_a_property_is_noticed(monkeypatch, report, fault) -> None:
    names = report.pop("recipients", ())
    recipients = tuple(RecipientReport(name) for name in names)
    said = {"kind": Kind.BOUNCE, "why": "It says so.", "recipients": recipients, **report}
    monkeypatch.setattr(reading_properties, "read", lambda _: Report(**said))
    with pytest.raises(AssertionError, match=fault):
        reading_properties.check(b"From: ann@x.example\n\nHello\n")


def test_work_without_an_end_is_noticed() -> None:
    with pytest.raises(reading_properties.TooSlow), reading_properties.within(0.05):
        all(True for _ in itertools.count())


class TooSlow(BaseException):
    """Stands for what the properties raise."""


def searched(tmp_path: Path, check: Callable[[bytes], None], *mails: bytes) -> fuzz_reading.Search:
    """Return a search that has tried the mails."""
    faulty = SimpleNamespace(check=lambda raw, **_: check(raw), TooSlow=TooSlow)
    search = fuzz_reading.Search(faulty, time.monotonic() + 3600, tmp_path)
    for mail in mails:
        search.attempt(mail)
    return search


def test_what_is_found_is_made_small_and_told_apart_by_how_it_broke(tmp_path, capsys) -> None:
    def check(raw: bytes) -> None:
        assert b"fatal" not in raw, f"nothing is fatal\n{raw!r}"
        assert b"worse" not in raw, f"nothing is worse\n{raw!r}"

    search = searched(
        tmp_path,
        check,
        b"Subject: harmless\n\nHello\n",
        b"Subject: not so\n\nThis one is fatal to us.\n",
        b"Subject: so again\n\nThis too is fatal.\n",
        b"Subject: another\n\nThis is worse.\n",
    )
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"fatal", b"worse"]
    assert (search.tried, capsys.readouterr().out.count("FOUND")) == (4, 2)
    assert [line.split("  (")[0].split() for line in search.groups().splitlines()] == [
        ["2", "x", "nothing", "is", "fatal"],
        ["1", "x", "nothing", "is", "worse"],
    ]


def test_the_smallest_mail_of_a_signature_takes_the_place_of_others(tmp_path) -> None:
    fatal = (b"a mail", b"another", b"less")  # no way leads from one to the next

    def check(raw: bytes) -> None:
        assert raw not in fatal, "nothing is fatal"

    searched(tmp_path, check, *fatal)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"less"]


def test_where_something_raises_tells_it_apart_and_where_time_runs_out_does_not(tmp_path) -> None:
    def check(raw: bytes) -> None:
        if raw.startswith(b"slow"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(structure, "html", SimpleNamespace(unescape=exhausted))
                structure.plain_text("a")
        structure.split_header(raw.decode())  # a text has no octets

    def exhausted(_: str) -> str:
        raise TooSlow

    search = searched(tmp_path, check, b"slow", b"")
    assert sorted(search.found) == [
        "TypeError in structure.py:split_header",
        "too slow in structure.py:plain_text",
    ]


def test_the_search_can_be_repeated() -> None:
    def some() -> list[bytes]:
        chance = random.Random(1)
        return [mutations.mutated(chance.choice(_SEEDS), chance, _SEEDS) for _ in range(20)]

    assert some() == some()

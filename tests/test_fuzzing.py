"""What the search for bad mail rests on, and what it found."""

from __future__ import annotations

import itertools
import random
import time
from types import SimpleNamespace

import pytest

import fuzz_reading
import mutations
import reading_properties
from mailbound.model import Kind
from mailbound.reading import RecipientReport, Report

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


def test_what_is_found_is_made_small_and_kept_once(tmp_path, capsys) -> None:
    class TooSlow(BaseException):
        pass

    def check(raw: bytes, **_: object) -> None:
        assert b"fatal" not in raw, "it is there"

    faulty = SimpleNamespace(check=check, TooSlow=TooSlow)
    search = fuzz_reading.Search(faulty, time.monotonic() + 3600, tmp_path)
    search.attempt(b"Subject: harmless\n\nHello\n")
    search.attempt(b"Subject: not so\n\nThis one is fatal to us.\n")
    search.attempt(b"Subject: so again\n\nThis too is fatal.\n")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"fatal"]
    assert (search.tried, capsys.readouterr().out.count("FOUND")) == (3, 1)


def test_the_search_can_be_repeated() -> None:
    def some() -> list[bytes]:
        chance = random.Random(1)
        return [mutations.mutated(chance.choice(_SEEDS), chance, _SEEDS) for _ in range(20)]

    assert some() == some()

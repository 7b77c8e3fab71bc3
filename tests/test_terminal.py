"""What the command line prints is safe, aligned, and quiet where nobody looks on."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound.cli import bars, terminal

MOMENT = datetime(2026, 11, 24, 13, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü", "plain ü"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("\x9b1m", "\\x9b1m"),
        ("a\u202eb", "a\\u202eb"),
        ("\udcfc", "\\udcfc"),
    ],
)
def test_control_characters_are_written_out(text, shown):
    assert terminal.escape(text) == shown


@given(st.text())
def test_json_keeps_every_text_and_shows_no_control_character(text):
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        terminal.print_json({"text": text})
    assert json.loads(printed.getvalue()) == {"text": text}
    assert terminal.escape(printed.getvalue().replace("\n", "")) == printed.getvalue().replace("\n", "")


def test_json_writes_moments_in_utc(capsys):
    terminal.print_json([MOMENT, MOMENT.date()])
    assert json.loads(capsys.readouterr().out) == ["2026-11-24T12:00:00Z", "2026-11-24"]


def test_a_table_in_a_pipe_is_aligned_text_with_numbers_to_the_right(capsys):
    rows = [("a\x1b", 5, MOMENT), ("longer", 1200, None), ("[bold]", None, True)]
    terminal.table(("name", "count", "at"), rows, title="All")
    assert capsys.readouterr().out.splitlines() == [
        "All",
        "name    count  at",
        "a\\x1b       5  2026-11-24 12:00:00Z",
        "longer   1200",
        "[bold]         yes",
    ]


def test_facts_without_a_value_are_left_out(capsys):
    terminal.facts([("name", "Joe"), ("nothing", None), ("a", False)])
    assert capsys.readouterr().out == "name  Joe\na     no\n"


def test_attributes_are_written_as_a_condition_has_them():
    assert terminal.pairs({"country": "DE", "vip": True, "score": 1.5}) == "country=DE, vip=true, score=1.5"


@pytest.mark.parametrize(("share", "length"), [(-1, 0), (0, 0), (0.5, 10), (1, 20), (7, 20)])
def test_a_bar_is_as_long_as_its_share(share, length):
    assert len(terminal.bar(share)) == length


def test_progress_is_silent_without_a_terminal(capsys):
    with terminal.progress("reading", 10) as advance:
        advance(5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("count", "said"), [(0, "0 rows"), (1, "1 row"), (1234, "1,234 rows")])
def test_counts_agree_with_their_noun(count, said):
    assert terminal.counted(count, "row") == said


def test_a_moment_is_shown_in_utc():
    assert terminal.cell(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02 03:04:05Z"


@pytest.mark.parametrize(("width", "has_time"), [(60, False), (100, True)])
def test_a_narrow_list_folds_what_strangers_chose_and_keeps_the_rest(capsys, width, has_time):
    row = (17, MOMENT, f"{'w' * 60}@example.com", "5.1.1 no-such-user", "quarantined")
    size = {"COLUMNS": str(width)}
    with mock.patch.dict("os.environ", size), mock.patch("sys.stdout.isatty", return_value=True):
        bars.table(("id", "at", "address", "says", "became"), [row], spare=("at",), long="address")
    said = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert max(map(len, said.splitlines())) <= width
    assert "17" in said
    assert "quarantined" in said
    assert said.count("w") == 60
    assert ("2026-11-24" in said) == has_time

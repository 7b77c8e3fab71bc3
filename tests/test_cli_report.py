"""`mailbound report`: as a person sees it, and as machines read it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mailbound.cli import activity_views, report, sheet, since
from mailbound.database import schema
from mailbound.database.engine import Database
from mailbound.errors import InputError
from mailbound.lifecycle import DeliveryState
from rows import World

SAMPLE = Path(__file__).parent.parent / "config.toml"
# The commands look at the clock, so what they report on is made of now.
NOW = datetime.now(UTC).replace(microsecond=0)
MORNING = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a configuration whose database has one run, with a bit of everything."""
    folder = tmp_path_factory.mktemp("report")
    url = f"sqlite:///{folder}/mailbound.db"
    written = folder / "config.toml"
    written.write_text(SAMPLE.read_text().replace("sqlite:///mailbound.db", url))
    with closing(Database(url)) as database:
        schema.upgrade(database)
        with database.begin() as connection:
            _fill(World(connection))
    return written


def _fill(world: World) -> None:
    run_id = world.run(world.activity("spring"), NOW, seconds=2)
    for _ in range(7):
        world.deliver(run_id, DeliveryState.ACCEPTED, day=NOW)
    world.deliver(run_id, DeliveryState.SKIPPED, reason="suspended", day=NOW)
    facts = {"attempt": 1, "marked_at": NOW, "settled_at": NOW, "reply": "250 2.0.0 Ok \x1b[2J", "day": NOW}
    dead = world.deliver(
        run_id, DeliveryState.BOUNCED, person=world.person(name="=cmd()", created_at=NOW), **facts
    )
    world.say(dead, at=NOW, rule="unknown-user", why="it is dead", diagnostic="550 5.1.1 no such person")
    refused = world.deliver(run_id, DeliveryState.REFUSED, at="=evil.example", day=NOW)
    world.say(refused, at=NOW, by_mail=False, category="blocked", permanent=False, reporting_mta="relay.test")
    world.say(dead, at=NOW, disposition="quarantined")
    world.say(dead, "complaint", at=NOW)
    world.say(None, "unsubscribe", at=NOW, recipient_id=dead.recipient_id, action="unsubscribed")


def run(config: Path, *arguments: str) -> str:
    """Return what a command prints."""
    result = CliRunner().invoke(report.app, arguments, obj=config, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def on_a_terminal(config: Path, *arguments: str, columns: int) -> str:
    """Return what a command writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm-256color", "PYTHONUTF8": "1"}
    environment |= {"PYTHONPATH": str(Path(report.__file__).parents[2])}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "mailbound.cli", "--config", str(config), "report", *arguments],
        stdin=theirs,
        stdout=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        written = b""
        while chunk := _read(ours):
            written += chunk
    os.close(ours)
    assert process.returncode == 0
    return written.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says EIO when the other end is closed
        return b""


# --- bounces ----------------------------------------------------------------------------------------------


def test_bounces_show_reasons_faults_and_shares(config: Path) -> None:
    lines = run(config, "bounces").splitlines()
    assert re.fullmatch(r"Bounces by reason, since \d{4}-\d\d-\d\d", lines[0])
    cells = [line.split() for line in lines[1:5]]
    assert cells[0] == [
        "reason",
        "fault",
        "bounces",
        "permanent",
        "refused",
        "reported",
        "share",
        "of",
        "sent",
    ]
    assert cells[1][:7] == ["blocked", "sender", "1", "0", "1", "0", "50.00%"]
    assert cells[2][:7] == ["no-such-user", "address", "1", "1", "0", "1", "50.00%"]
    assert cells[3] == ["all", "2", "1", "1", "1", "100.00%", "22.22%"]
    assert lines[5] == "9 sent · 2 bounces (22.22%) · 1 complaint (11.11%) · 1 unsubscribed"
    assert lines[6].startswith("1 quarantined and not counted")


def test_bounces_as_json(config: Path) -> None:
    found = json.loads(run(config, "bounces", "--by", "domain", "--json"))
    groups = {group["domain"]: group for group in found["groups"]}
    assert set(groups) == {"example.com", "=evil.example"}
    assert (groups["example.com"]["bounces"], groups["example.com"]["sent"]) == (1, 8)
    assert (found["total"]["complaints"], found["total"]["sent"], found["others"]) == (1, 9, None)
    assert found["dispositions"]["quarantined"] == 1


def test_bounces_as_csv_hold_no_formula(config: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(config, "bounces", "--by", "domain", "--csv"))))
    assert {row["domain"]: row["bounces"] for row in rows} == {"example.com": "1", "'=evil.example": "1"}


def test_bounces_of_an_activity_are_those_of_ever_since(config: Path) -> None:
    assert run(config, "bounces", "--activity", "spring").startswith(
        "Bounces of spring by reason, ever since"
    )


def test_a_period_within_a_day_shows_no_share_of_what_was_sent(config: Path) -> None:
    shown = run(config, "bounces", "--by", "domain", "--since", "12h")
    assert "sent" not in shown
    assert "2 bounces" in shown


def test_nothing_bounced_is_said_in_words(config: Path) -> None:
    shown = run(config, "bounces", "--since", f"{NOW + timedelta(days=1):%Y-%m-%d}")
    assert "Nothing bounced." in shown


def test_what_is_left_over_stands_in_a_line_of_its_own(config: Path) -> None:
    lines = run(config, "bounces", "--by", "domain", "--limit", "1").splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["example.com", "others", "all"]


# --- activity, domains, recipient -------------------------------------------------------------------------


def test_an_activity_shows_that_its_audience_is_the_sum_of_the_states(config: Path) -> None:
    lines = run(config, "activity", "spring").splitlines()
    counts = {line.split()[0]: line.split()[1] for line in lines[3:9]}
    assert counts == {
        "accepted": "7",
        "bounced": "1",
        "refused": "1",
        "skipped": "1",
        "suspended": "1",
        "audience": "10",
    }
    assert "the sum of the states" in lines[8]
    assert lines[1].endswith("2.0 s · 4.5 messages/s")
    assert lines[-1] == "9 sent · 2 bounces (22.22%) · 1 complaint (11.11%) · 1 unsubscribed · 0 delays"


def test_an_activity_as_json_and_csv_has_the_same_numbers(config: Path) -> None:
    (found,) = json.loads(run(config, "activity", "1", "--json"))["runs"]
    (row,) = csv.DictReader(io.StringIO(run(config, "activity", "spring", "--csv")))
    assert found["outcomes"] == {outcome: int(row[outcome]) for outcome in found["outcomes"]}
    assert sum(found["outcomes"].values()) == found["audience"] == int(row["audience"])
    assert found["skipped"] == {"suspended": 1}
    assert [bounce["reason"] for bounce in found["bounces"]] == ["blocked", "no-such-user"]


def test_domains_show_the_busiest_first(config: Path) -> None:
    lines = run(config, "domains").splitlines()
    assert lines[2].split()[:7] == ["example.com", "8", "8", "0", "1", "0", "12.50%"]
    assert lines[-1].split() == ["all", "9", "8", "1", "1", "0", "22.22%"]
    assert json.loads(run(config, "domains", "--json", "--limit", "1"))["count"] == 2


def test_a_recipient_has_a_timeline_that_no_server_can_write_into(config: Path) -> None:
    shown = run(config, "recipient", "c9")
    words = [line.split()[2] for line in shown.splitlines()[2:]]
    assert words == ["imported", "marked", "accepted", "bounce", "bounce", "complaint", "unsubscribe"]
    assert r"spring, run 1: 250 2.0.0 Ok \x1b[2J" in shown
    assert "no-such-user, permanent (signed, rule unknown-user) → applied: it is dead [bounce 1]" in shown
    assert "550 5.1.1 no such person" in shown


def test_a_recipient_as_json_keeps_the_facts_apart(config: Path) -> None:
    (found,) = json.loads(run(config, "recipient", "c9", "--json"))
    (bounce,) = (entry for entry in found["entries"] if entry["fields"].get("rule"))
    assert bounce["fields"]["category"] == "no-such-user"
    assert bounce["fields"]["evidence"] == "signed"
    rows = list(csv.DictReader(io.StringIO(run(config, "recipient", "c9", "--csv"))))
    assert len(rows) == len(found["entries"])


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        pytest.param(["bounces", "--json", "--csv"], "choose one", id="two formats"),
        pytest.param(["bounces", "--since", "soon"], "'soon' is no moment", id="no moment"),
        pytest.param(["bounces", "--activity", "sprnig"], "no activity 'sprnig'", id="no activity"),
        pytest.param(["recipient", "nobody@example.com"], "no recipient", id="nobody"),
    ],
)
def test_a_fault_of_the_input_names_it(config: Path, arguments: list[str], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        run(config, *arguments)


# --- on a terminal ----------------------------------------------------------------------------------------

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize(
    "arguments",
    [("bounces",), ("bounces", "--by", "domain"), ("activity", "spring"), ("domains",), ("recipient", "c9")],
    ids=" ".join,
)
def test_a_terminal_sees_colours_and_no_line_that_is_too_long(
    config: Path, arguments: tuple[str, ...], columns: int
) -> None:
    shown = on_a_terminal(config, *arguments, columns=columns)
    plain = ESCAPES.sub("", shown)
    assert shown != plain
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= min(columns, 100)


def test_a_narrow_terminal_is_spared_columns_but_never_the_count(config: Path) -> None:
    wide = ESCAPES.sub("", on_a_terminal(config, "bounces", columns=120))
    narrow = ESCAPES.sub("", on_a_terminal(config, "bounces", columns=72))
    heads = [shown.splitlines()[2].split() for shown in (wide, narrow)]
    assert {"reported", "permanent"} <= set(heads[0])
    assert "reported" not in heads[1]
    assert "bounces" in heads[1]
    assert "█" in narrow


# --- words and numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("90s", MORNING - timedelta(seconds=90), id="seconds"),
        pytest.param("30m", MORNING - timedelta(minutes=30), id="minutes"),
        pytest.param("12h", MORNING - timedelta(hours=12), id="hours"),
        pytest.param("7d", MORNING - timedelta(days=7), id="days"),
        pytest.param("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC), id="date"),
        pytest.param("2026-11-01T10:00", datetime(2026, 11, 1, 10, tzinfo=UTC), id="date and time"),
        pytest.param("2026-11-01T10:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC), id="with a zone"),
    ],
)
def test_since_reads_durations_and_dates(text: str, expected: datetime) -> None:
    assert since.moment(text, now=MORNING) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 weeks", "2026-13-01", "99999999999d"])
def test_since_refuses_what_is_no_moment(text: str) -> None:
    with pytest.raises(InputError, match="no moment"):
        since.moment(text, now=MORNING)


def test_days_begin_at_midnight_and_hours_where_they_are() -> None:
    assert since.day("7d", now=MORNING) == datetime(2026, 11, 17, tzinfo=UTC)
    assert since.day("12h", now=MORNING) == MORNING - timedelta(hours=12)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("plain", "plain", id="text"),
        pytest.param("=1+1", "'=1+1", id="equals"),
        pytest.param("+1", "'+1", id="plus"),
        pytest.param("-1", "'-1", id="minus"),
        pytest.param("@SUM(A1)", "'@SUM(A1)", id="at"),
        pytest.param("\t=1", "'\t=1", id="tab"),
        pytest.param("\rx", "'\rx", id="carriage return"),
        pytest.param("\ufeff=1", "'\ufeff=1", id="after a byte order mark"),
        pytest.param("  =1", "'  =1", id="after spaces"),
        pytest.param("\uff1d1", "'\uff1d1", id="wide equals"),
        pytest.param("a=1", "a=1", id="equals within"),
        pytest.param(-1, "-1", id="a number of our own"),
        pytest.param(None, "", id="nothing"),
        pytest.param(MORNING, "2026-11-24T09:30:00Z", id="moment"),
    ],
)
def test_a_cell_is_text_and_never_a_formula(value: Any, expected: str) -> None:
    assert sheet.cell(value) == expected


def test_every_cell_is_quoted_and_comes_back_as_it_was() -> None:
    out = io.StringIO()
    sheet.write(["a", "b"], [['say "hi"', 1], ["two\nlines", None]], out=out)
    assert out.getvalue() == '"a","b"\r\n"say ""hi""","1"\r\n"two\nlines",""\r\n'


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(2, "2.0 s"), (59.9, "1 min"), (95, "1 min 35 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (0, "0.0 s")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, expected: str) -> None:
    assert activity_views.span(timedelta(seconds=seconds)) == expected

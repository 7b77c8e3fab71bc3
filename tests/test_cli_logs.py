"""`mailbound logs`: records read, filtered and shown; files that grow, turn and shrink; the journal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mailbound.cli import log_lines, logs
from mailbound.cli.log_lines import Filter, Level, Record
from mailbound.errors import InputError

AT = "2026-11-24T06:51:21.5Z"
ACCEPTED = {
    "timestamp": AT,
    "level": "info",
    "event": "delivery.accepted",
    "delivery": 42,
    "activity": "spring",
}
RECORDED = {
    "timestamp": AT,
    "level": "warning",
    "event": "bounce.recorded",
    "activity_id": 7,
    "why": "it is dead",
}


def line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


app = typer.Typer()
app.command()(logs.logs)


def run(*arguments: str, stdin: bytes | None = None) -> str:
    result = CliRunner().invoke(app, arguments, input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


# --- records ----------------------------------------------------------------------------------------------


def test_a_record_is_shown_on_one_line() -> None:
    shown = log_lines.as_text(log_lines.of_line(line(RECORDED)), colours=False)
    assert shown == '2026-11-24 06:51:21Z warning  bounce.recorded        activity_id=7 why="it is dead"'


def test_a_record_has_colours_where_they_are_wanted() -> None:
    shown = log_lines.as_text(log_lines.of_line(line(RECORDED)), colours=True)
    assert "\x1b[33mwarning" in shown


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "{", "[1]", "null", '{"a": ', "[" * 100_000, '{"a":' * 100_000, "\x00"],
    ids=["empty", "text", "brace", "list", "null", "cut off", "deep", "deep object", "null byte"],
)
def test_what_is_no_record_is_kept_as_it_stands(text: str) -> None:
    record = log_lines.of_line(text.encode())
    assert (record.line, record.event) == (text, "")


def controls(text: str) -> set[str]:
    return {character for character in text if unicodedata.category(character) in {"Cc", "Zl", "Zp", "Cs"}}


@given(st.binary(max_size=200))
def test_no_octets_end_the_log_or_reach_the_terminal(octets: bytes) -> None:
    for read in (log_lines.of_line, log_lines.of_journal):
        record = read(octets)
        assert not controls(log_lines.as_text(record, colours=False))
        assert "\n" not in log_lines.as_json(record)


_VALUES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.integers(), max_size=3)
)
_KEYS = st.sampled_from(["timestamp", "level", "event", "MESSAGE", "PRIORITY", "EVENT", "x"])


@given(st.dictionaries(_KEYS, _VALUES, max_size=7))
def test_no_values_end_the_log_or_reach_the_terminal(values: dict[str, Any]) -> None:
    for read in (log_lines.of_line, log_lines.of_journal):
        record = read(line(values))
        shown = log_lines.as_text(record, colours=False)
        assert not controls(shown)
        assert isinstance(json.loads(log_lines.as_json(record)), dict)


def test_as_json_a_record_comes_back_as_it_was() -> None:
    assert json.loads(log_lines.as_json(log_lines.of_line(line(RECORDED)))) == RECORDED | {
        "timestamp": "2026-11-24T06:51:21.500000Z"
    }
    assert json.loads(log_lines.as_json(Record(line="a traceback"))) == {"line": "a traceback"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(Filter(), "ARL", id="everything"),
        pytest.param(Filter(events=("bounce.*",)), "R", id="event"),
        pytest.param(Filter(events=("bounce.*", "delivery.accepted")), "AR", id="two events"),
        pytest.param(Filter(activity="spring"), "A", id="activity by name"),
        pytest.param(Filter(activity="7"), "R", id="activity by id"),
        pytest.param(Filter(level=Level.WARNING), "RL", id="level"),
        pytest.param(Filter(level=Level.DEBUG), "ARL", id="lowest level"),
        pytest.param(Filter(since=datetime(2026, 11, 24, 6, 52, tzinfo=UTC)), "L", id="later"),
        pytest.param(Filter(since=datetime(2026, 11, 24, 6, 51, tzinfo=UTC)), "ARL", id="since"),
        pytest.param(Filter(fields=(("delivery", "42"),)), "A", id="field"),
        pytest.param(Filter(fields=(("why", "it is*"),)), "R", id="glob of a field"),
        pytest.param(Filter(fields=(("delivery", "42"), ("why", "*"))), "", id="both fields"),
    ],
)
def test_filters_are_combined(wanted: Filter, expected: str) -> None:
    records = {
        "A": log_lines.of_line(line(ACCEPTED)),
        "R": log_lines.of_line(line(RECORDED)),
        "L": Record(line="x"),
    }
    assert "".join(name for name, record in records.items() if wanted.passes(record)) == expected


# --- files ------------------------------------------------------------------------------------------------


def after(*steps: Callable[[], object]) -> Callable[[], bool]:
    """Return a pause that takes one step each time the end of the file is reached, and ends after the last."""
    left: Iterator[Callable[[], object]] = iter(steps)

    def pause() -> bool:
        step = next(left, None)
        if step is None:
            return False
        step()
        return True

    return pause


def append(path: Path, octets: bytes) -> Callable[[], None]:
    def step() -> None:
        with path.open("ab") as file:
            file.write(octets)

    return step


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    return path


def test_a_file_is_read_to_its_end(log: Path) -> None:
    log.write_bytes(b"one\ntwo\nno end")
    assert list(logs.read(log)) == [b"one\n", b"two\n", b"no end"]


def test_a_file_that_grows_is_followed_by_whole_lines(log: Path) -> None:
    pause = after(append(log, b"tw"), append(log, b"o\nth"), append(log, b"ree\n"))
    assert list(logs.read(log, pause=pause)) == [b"one\n", b"two\n", b"three\n"]


def test_a_file_that_is_turned_is_read_to_its_end_and_then_the_new_one(log: Path) -> None:
    old = log.with_suffix(".1")
    pause = after(
        lambda: log.rename(old),
        append(old, b"last of the old\n"),
        lambda: (append(old, b"really the last\n")(), log.write_bytes(b"first of the new\n")),
        append(log, b"second\n"),
    )
    assert list(logs.read(log, pause=pause)) == [
        b"one\n",
        b"last of the old\n",
        b"really the last\n",
        b"first of the new\n",
        b"second\n",
    ]


def test_a_last_line_without_an_end_is_not_joined_to_the_next_file(log: Path) -> None:
    log.write_bytes(b"cut o")
    pause = after(lambda: (log.rename(log.with_suffix(".1")), log.write_bytes(b"new\n")))
    assert list(logs.read(log, pause=pause)) == [b"cut o", b"new\n"]


def test_a_file_that_is_truncated_is_read_anew(log: Path) -> None:
    log.write_bytes(b"one\ntwo\n")
    pause = after(
        lambda: log.write_bytes(b"new\n")
    )  # the same file: opened for writing, it is cut to nothing
    assert list(logs.read(log, pause=pause)) == [b"one\n", b"two\n", b"new\n"]


def test_following_begins_with_the_last_ten_lines(log: Path) -> None:
    log.write_bytes(b"".join(b"%d\n" % number for number in range(50_000)))
    found = list(logs.read(log, tail=True, pause=after(append(log, b"new\n"))))
    assert found == [*(b"%d\n" % number for number in range(49_990, 50_000)), b"new\n"]


def test_following_a_short_file_begins_with_all_of_it(log: Path) -> None:
    assert list(logs.read(log, tail=True)) == [b"one\n"]


# --- the command ------------------------------------------------------------------------------------------


def test_a_file_and_standard_input_are_shown_alike(log: Path) -> None:
    octets = line(ACCEPTED) + b"garbage \xff\x1b[2J\n" + line(RECORDED)
    log.write_bytes(octets)
    shown = run(str(log))
    assert shown == run("-", stdin=octets)
    assert shown.splitlines()[1] == r"garbage �\x1b[2J"
    assert len(shown.splitlines()) == 3


def test_the_command_filters(log: Path) -> None:
    log.write_bytes(line(ACCEPTED) + b"garbage\n" + line(RECORDED))
    (shown,) = run(
        str(log), "--event", "bounce.*", "--level", "warning", "--field", "why=it*", "--json"
    ).splitlines()
    assert json.loads(shown)["event"] == "bounce.recorded"
    assert run(str(log), "--activity", "summer") == ""


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        pytest.param(["nowhere.log"], "No such file", id="no file"),
        pytest.param(["-", "--field", "novalue"], "key=value", id="no value"),
        pytest.param(["-", "--since", "soon"], "no moment", id="no moment"),
    ],
)
def test_a_fault_of_the_input_names_it(arguments: list[str], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        run(*arguments)


@contextlib.contextmanager
def follow(log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that follows a file; it is gone in the end, whatever the test does."""
    environment = os.environ | {"PYTHONPATH": str(Path(logs.__file__).parents[2]), "PYTHONUTF8": "1"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "mailbound.cli", "logs", "-f", str(log)]
    with subprocess.Popen(command, env=environment, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def test_who_follows_sees_each_line_when_it_is_there_and_stops_quietly(log: Path) -> None:
    log.write_bytes(line(ACCEPTED))
    with follow(log, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"delivery.accepted" in process.stdout.readline()
        append(log, line(RECORDED))()
        assert b"bounce.recorded" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_a_terminal_sees_colours_and_what_is_no_record_dimmed(log: Path) -> None:
    log.write_bytes(b"garbage\n")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, follow(log, stdout=theirs) as process:
        os.close(theirs)
        assert screen.readline() == b"\x1b[90mgarbage\x1b[0m\r\n"
        process.send_signal(signal.SIGINT)


# --- the journal ------------------------------------------------------------------------------------------

ENTRY = {
    "__REALTIME_TIMESTAMP": "1795503081500000",
    "__CURSOR": "s=1",
    "_PID": "1",
    "SYSLOG_IDENTIFIER": "mailbound",
    "PRIORITY": "4",
    "MESSAGE": "bounce.recorded bounce=7",
    "EVENT": "bounce.recorded",
    "BOUNCE": "7",
    "CODE": "550",
}


def test_an_entry_with_native_fields_is_a_record() -> None:
    record = log_lines.of_journal(line(ENTRY))
    assert record == Record(
        datetime(2026, 11, 24, 6, 51, 21, 500_000, tzinfo=UTC),
        "warning",
        "bounce.recorded",
        {"bounce": "7", "code": "550"},
    )


def test_an_entry_whose_message_is_a_line_of_json_is_that_record() -> None:
    message = json.dumps(ACCEPTED)
    for value in (message, list(message.encode())):  # the journal writes what it cannot print as octets
        record = log_lines.of_journal(line({"__REALTIME_TIMESTAMP": "1", "MESSAGE": value}))
        assert (record.event, record.fields["delivery"]) == ("delivery.accepted", 42)


def test_what_systemd_says_of_the_service_is_shown_too() -> None:
    record = log_lines.of_journal(
        line({"PRIORITY": "6", "MESSAGE": "Started mailbound.", "UNIT": "mailbound.service"})
    )
    assert (record.line, record.level) == ("Started mailbound.", "info")


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a journalctl of our own writes its arguments; the real one has no such entries to show."""
    program = tmp_path / "journalctl"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat {tmp_path}/entries\nexit $(cat {tmp_path}/status)\n'
    )
    program.chmod(0o755)
    (tmp_path / "entries").write_bytes(line(ENTRY))
    (tmp_path / "status").write_text("0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "arguments"


def test_without_a_file_the_journal_is_asked(journalctl: Path) -> None:
    shown = run("--follow", "--since", "2026-11-24", "--unit", "mailbound@two")
    assert shown.split() == ["2026-11-24", "06:51:21Z", "warning", "bounce.recorded", "bounce=7", "code=550"]
    asked = journalctl.read_text().split()
    assert {
        "--unit=mailbound@two",
        "--output=json",
        "--all",
        "--follow",
        "--since=@1795478400.000000",
    } <= set(asked)


def test_a_journal_that_cannot_be_read_is_a_fault(journalctl: Path) -> None:
    journalctl.with_name("status").write_text("1")
    with pytest.raises(InputError, match="status 1"):
        run()


def test_an_empty_journal_is_told_of(journalctl: Path) -> None:
    journalctl.with_name("entries").write_bytes(b"")
    result = CliRunner().invoke(app, [])
    assert "The journal has nothing of mailbound" in result.stderr


def test_without_journalctl_a_file_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="no journalctl"):
        run()

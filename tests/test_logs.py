"""The log: one record is one line, no secret is in it, and nothing waits for its reader."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from mailbound import config, logs
from mailbound.logs import journal

CANARY = "canary-7Yq2"
EVENT_OF_CANARY = f"relay.{CANARY}"
patient = settings(deadline=None)  # the machine may be busy
FIELD = st.text(min_size=1).filter(lambda key: key not in {"event", "level", "self"})
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=20)
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave Python's and structlog's logging as they were found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines_of(*, speak, secrets=(), **section) -> list[str]:
    """Return the lines that `speak(log)` writes."""
    stream = io.StringIO()
    logs.configure(config.Log(**section), stream=stream, secrets=secrets)
    speak(structlog.get_logger())
    logs.flush()
    return stream.getvalue().split("\n")[:-1]


def record_of(*, speak, **options) -> dict:
    """Return the one record that `speak(log)` writes as JSON."""
    [line] = lines_of(speak=speak, **options)
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def fails_with(text: str):
    """Return what logs an exception that says `text`; its frame has a local variable with it as well."""

    def speak(log) -> None:
        try:
            fail(text)
        except OSError:
            log.exception("loop.failed")

    return speak


def fail(text: str) -> None:
    hidden_in_a_local = [text]
    raise OSError(hidden_in_a_local[0])


ROWS = st.lists(
    st.tuples(
        st.integers(),
        st.booleans() | st.integers(),
        st.text() | st.sampled_from(["a@example.org", "hunter2 or not", "x" * 3000]),
        st.sampled_from(["anna@example.org", "anna", "hunter2"]),
        ANYTHING,
    ),
    max_size=4,
)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("section", [{}, {"addresses": "clear"}, {"level": "warning"}], ids=str)
@patient
@given(rows=ROWS)
def test_records_logged_together_are_those_logged_one_by_one(form, section, rows):
    names = ("delivery", "seen%s", "reply", "address", "password")
    secrets = [SecretStr("hunter2")]

    def one_by_one(log) -> None:
        for row in rows:
            log.info("delivery.accepted", **dict(zip(names, row, strict=True)))

    def together(_log) -> None:
        logs.info_each("delivery.accepted", names, rows)

    said = [
        [re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "", line, count=1) for line in lines]
        for lines in (
            lines_of(speak=speak, secrets=secrets, format=form, **section) for speak in (one_by_one, together)
        )
    ]
    assert said[0] == said[1]
    assert len(said[0]) == (0 if section.get("level") else len(rows))


# --- one record is one line -------------------------------------------------------------------------------


def test_a_record_has_time_level_event_and_its_fields():
    record = record_of(speak=lambda log: log.info("delivery.accepted", delivery=42, duration=0.25))
    moment = datetime.fromisoformat(record.pop("timestamp"))
    assert moment.tzinfo == UTC
    assert record == {"level": "info", "event": "delivery.accepted", "delivery": 42, "duration": 0.25}


@patient
@given(event=st.text(), fields=st.dictionaries(FIELD, ANYTHING, max_size=4))
def test_one_record_is_one_line_whatever_stands_in_it(event, fields):
    record = record_of(speak=lambda log: log.info(event, **fields))
    assert {"timestamp", "level", "event"} <= set(record)


@patient
@given(text=st.text())
def test_a_text_that_is_not_hidden_comes_back_as_it_was(text):
    assert (
        record_of(speak=lambda log: log.info("mail.read", subject=text), addresses="clear")["subject"] == text
    )


@pytest.mark.parametrize("form", ["json", "console"])
@patient
@given(value=st.text())
def test_no_control_character_reaches_the_reader(form, value):
    [line] = lines_of(speak=lambda log: log.info("mail.read", subject=value, **{f"k{value}": 1}), format=form)
    assert line.isprintable()


def test_an_object_that_cannot_say_what_it_is_does_not_break_the_record():
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert record_of(speak=lambda log: log.info("mail.read", thing=Mute()))["thing"] == "<Mute>"


def test_a_value_that_holds_itself_ends():
    loop: list = []
    loop.append(loop)
    assert "…" in str(record_of(speak=lambda log: log.info("mail.read", loop=loop))["loop"])


def test_a_long_value_is_cut():
    assert len(record_of(speak=lambda log: log.info("mail.read", text="x" * 10_000_000))["text"]) == 2001


def test_the_level_holds_back_what_is_below_it():
    def speak(log) -> None:
        log.info("run.started")
        log.warning("run.paused")

    assert record_of(speak=speak, level="warning")["event"] == "run.paused"


def test_a_new_configuration_holds_for_loggers_made_before():
    log = structlog.get_logger()
    first, second = io.StringIO(), io.StringIO()
    logs.configure(config.Log(level="error"), stream=first)
    log.warning("run.paused")
    logs.configure(config.Log(), stream=second)
    log.warning("run.paused")
    logs.flush()
    assert (first.getvalue().count("\n"), second.getvalue().count("\n")) == (0, 1)


@pytest.mark.parametrize("name", ["flufl.bounce", "asyncio", "sqlalchemy.engine", "aioimaplib"])
def test_what_a_library_warns_of_is_a_record_and_its_chatter_is_none(name):
    def speak(_log) -> None:
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("odd: %s", "a\nb")

    record = record_of(speak=speak, level="debug")
    assert (record["event"], record["library"], record["text"]) == ("library.warned", name, "odd: a\nb")


def test_a_library_that_words_its_message_wrongly_breaks_nothing():
    record = record_of(speak=lambda _log: logging.getLogger("odd").error("%s and %s", *[1]))
    assert (record["level"], record["text"]) == ("error", "'%s and %s'")


# --- what may not stand in it -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "speak",
    [
        pytest.param(lambda log: log.info("relay.opened", password=CANARY), id="password"),
        pytest.param(
            lambda log: log.info("relay.opened", relay_secret=CANARY.encode()), id="secret in octets"
        ),
        pytest.param(
            lambda log: log.info("relay.opened", headers={"Authorization": CANARY}), id="inside a table"
        ),
        pytest.param(lambda log: log.info("relay.opened", password=[CANARY, 5]), id="a list of them"),
        pytest.param(lambda log: log.info("relay.opened", access_token=CANARY), id="token"),
        pytest.param(lambda log: log.info("relay.opened", account=SecretStr(CANARY)), id="secret type"),
    ],
)
def test_a_field_that_is_a_secret_by_its_name_or_type_is_hidden(speak, form):
    text = "\n".join(lines_of(speak=speak, format=form))
    assert "relay.opened" in text
    assert CANARY not in text


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "speak",
    [
        pytest.param(lambda log: log.info("relay.opened", reply=f"535 {CANARY} is wrong"), id="in a reply"),
        pytest.param(
            lambda log: log.info(EVENT_OF_CANARY, **{CANARY: {CANARY: CANARY}}), id="event and keys"
        ),
        pytest.param(
            lambda log: log.info("relay.opened", text="x" * 1990 + CANARY + "x"), id="where a text is cut"
        ),
        pytest.param(fails_with(f"login {CANARY} failed"), id="in an exception"),
        pytest.param(lambda _log: logging.getLogger("lib").warning("sent %s", CANARY), id="by a library"),
    ],
)
def test_a_known_secret_is_hidden_wherever_it_stands(speak, form):
    text = "\n".join(lines_of(speak=speak, format=form, secrets=[SecretStr(CANARY), SecretStr("")]))
    assert "********" in text
    assert CANARY[:8] not in text


def test_an_exception_is_told_without_its_locals():
    record = record_of(speak=fails_with("no route"))
    [error] = record["exception"]
    assert (error["exc_type"], error["exc_value"]) == ("OSError", "no route")
    assert "hidden_in_a_local" not in json.dumps(record)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "fields",
    [
        {"address": "canary@example.com"},
        {"recipient_address": "canary@example.com"},
        {"reply": "550 5.1.1 <canary@example.com>: no such user"},
        {"reply": "550 canary@example.com"},
        {"reply": '550 <"canary bird"@example.com> unknown'},
        {"text": ["to:canary@example.com", {"rcpt": "canary@example.com"}]},
    ],
    ids=str,
)
def test_addresses_are_masked_wherever_they_stand(fields, form):
    [line] = lines_of(speak=lambda log: log.info("delivery.refused", **fields), format=form)
    assert "canary" not in line
    assert "***@example.com" in line


def test_a_long_traceback_is_whole():
    text = "\n".join(lines_of(speak=fails_with("y" * 5_000), format="console"))
    assert "y" * 5_000 in text


def test_addresses_are_clear_when_the_configuration_says_so():
    speak = lambda log: log.info("delivery.refused", address="a@b.example", reply="<a@b.example>")  # noqa: E731
    record = record_of(speak=speak, addresses="clear")
    assert (record["address"], record["reply"]) == ("a@b.example", "<a@b.example>")


def test_identifiers_stay_whole_though_they_look_like_addresses():
    record = record_of(speak=lambda log: log.info("mail.read", message_id="<abc@example.com>"))
    assert record["message_id"] == "<abc@example.com>"


# --- nothing waits for its reader -------------------------------------------------------------------------


def test_a_reader_that_stops_reading_costs_records_not_time():
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as reader:
        logs.configure(config.Log(), stream=stream)
        log = structlog.get_logger()
        said = 12_000
        for number in range(said):
            log.info("delivery.accepted", number=number, reply="x" * 1_000)
        lost = logs.dropped()
        assert 0 < lost < said
        records = []
        while not records or records[-1]["event"] != "log.dropped":
            records.append(json.loads(reader.readline()))
        assert records[-1]["count"] == lost
        assert [record["number"] for record in records if "number" in record] == list(range(said - lost))


def test_a_pipe_that_another_made_impatient_loses_nothing():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as reader:
        logs.configure(config.Log(), stream=stream)
        for number in range(200):
            structlog.get_logger().info("delivery.accepted", number=number, reply="x" * 1_000)
        assert [json.loads(reader.readline())["number"] for _ in range(200)] == list(range(200))


def test_a_closed_reader_breaks_nothing_and_is_counted():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        logs.configure(config.Log(), stream=stream)
        structlog.get_logger().info("run.started")
        logs.flush()
        assert logs.dropped() == 1


def test_a_closed_stream_breaks_nothing():
    stream = io.StringIO()
    logs.configure(config.Log(), stream=stream)
    stream.close()
    structlog.get_logger().info("run.started")
    logs.flush()
    assert logs.dropped() == 1


def test_the_last_words_of_a_process_are_written():
    assert [json.loads(line)["run"] for line in said_by_a_process(runs=1000).splitlines()] == list(
        range(1000)
    )


def said_by_a_process(*, runs: int, form: str | None = None, to_journal: bool = False) -> str:
    """Return what a process that logs so many records writes to its standard error."""
    program = (
        f"import structlog; from mailbound import config, logs; logs.configure(config.Log(format={form!r}));"
        f"[structlog.get_logger().info('run.sent', run=n) for n in range({runs})]"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(logs.__file__).parent.parent.parent)}
    environment.pop("JOURNAL_STREAM", None)
    with tempfile.TemporaryFile("w+") as file:
        status = os.fstat(file.fileno())
        if to_journal:
            environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        subprocess.run([sys.executable, "-c", program], env=environment, stderr=file, check=True)
        file.seek(0)
        return file.read()


# --- the journal ------------------------------------------------------------------------------------------


def fields_of(entry: bytes) -> dict[str, str]:
    """Read a journal entry as journald does."""
    fields, place = {}, 0
    while place < len(entry):
        line, _, _ = entry[place:].partition(b"\n")
        place += len(line) + 1
        name, equals, value = line.partition(b"=")
        if not equals:
            [length] = struct.unpack_from("<Q", entry, place)
            value = entry[place + 8 : place + 8 + length]
            place += 8 + length + 1
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journald(tmp_path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.settimeout(10)
        yield server


def test_the_journal_gets_native_fields(journald):
    logs.configure(config.Log(), journal=Path(journald.getsockname()))
    structlog.get_logger().warning(
        "delivery.refused",
        activity="spring",
        delivery=42,
        reply="550 5.1.1\nno such user",
        message_id="<a@b>",
    )
    assert fields_of(journald.recv(65536)) == {
        "MESSAGE": (
            r'delivery.refused activity=spring delivery=42 reply="550 5.1.1\nno such user" message_id=<a@b>'
        ),
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "mailbound",
        "EVENT": "delivery.refused",
        "ACTIVITY": "spring",
        "DELIVERY": "42",
        "REPLY": "550 5.1.1\nno such user",
        "MESSAGE_ID_": "<a@b>",
    }


@patient
@given(fields=st.dictionaries(FIELD, st.text(), max_size=5), event=st.text())
def test_no_value_can_forge_a_field_of_the_journal(fields, event):
    entry = fields_of(journal.entry({"level": "info", "event": event, **fields}))
    assert entry["PRIORITY"] == "6"
    assert entry["EVENT"].encode(errors="replace") == event.encode(errors="backslashreplace")
    assert all(name.isascii() and name[0].isalpha() and name.upper() == name for name in entry)
    assert len(entry) <= 4 + len(fields)


def test_an_entry_too_large_for_a_datagram_is_handed_over_as_a_sealed_file(journald):
    logs.configure(config.Log(), journal=Path(journald.getsockname()))
    structlog.get_logger().info("mail.read", parts=["x" * 1_900] * 400)
    _, [descriptor], _, _ = socket.recv_fds(journald, 65536, 1)
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        fields = fields_of(file.read())
    assert fields["EVENT"] == "mail.read"
    assert json.loads(fields["PARTS"]) == ["x" * 1_900] * 400


def test_a_journal_that_is_gone_breaks_nothing(tmp_path):
    logs.configure(config.Log(), journal=tmp_path / "nobody")
    structlog.get_logger().info("run.started")
    logs.flush()
    assert logs.dropped() == 1


def test_the_journal_listens_when_standard_error_is_its_stream(tmp_path):
    with (tmp_path / "stderr").open("w") as file:
        status = os.fstat(file.fileno())
        place = f"{status.st_dev}:{status.st_ino}"
        assert journal.listens({"JOURNAL_STREAM": place}, file.fileno())
        assert not journal.listens({"JOURNAL_STREAM": "1:1"}, file.fileno())
        assert not journal.listens({}, file.fileno())


def test_a_format_that_is_written_out_wins_over_the_journal():
    assert json.loads(said_by_a_process(runs=1, form="json", to_journal=True))["run"] == 0


@pytest.mark.skipif(journal.SOCKET.exists(), reason="a record would go to this machine's own journal")
def test_what_goes_to_the_journal_goes_nowhere_else():
    assert not said_by_a_process(runs=1, to_journal=True)

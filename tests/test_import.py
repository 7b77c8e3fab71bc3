"""Importing people: what is read of a file, what becomes of it in the database, and what never changes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound.cli import importing
from mailbound.cli.importing import loop, records, repeats
from mailbound.cli.importing.people import guess
from mailbound.database import erasing, wishes
from mailbound.database.imports import BATCH
from mailbound.database.wishes import Wish
from mailbound.errors import InputError
from mailbound.model import RecipientStatus, Source
from people import DAY, HOUR, NOW, People, people

HEAD = "external_id,address\n"


@pytest.fixture
def world(database_url: str) -> Iterator[People]:
    with people(database_url) as world:
        yield world


@pytest.fixture
def lite(sqlite_url: str) -> Iterator[People]:
    """Return a world on SQLite alone, for what does not depend on the engine."""
    with people(sqlite_url) as world:
        yield world


def read(content: bytes, form: str = "csv") -> list[tuple[int, object]]:
    rows = records.read(io.BytesIO(content), form)
    return [
        (row.line, row.fields.reason if isinstance(row.fields, records.Fault) else row.fields) for row in rows
    ]


# --- what is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"a,b\n1,2\n", id="plain"),
        pytest.param(b"\xef\xbb\xbfa,b\r\n1,2\r\n", id="BOM and CRLF"),
        pytest.param(b"a;b\n1;2\n", id="semicolons"),
        pytest.param(b"a\tb\n1\t2\n", id="tabs"),
        pytest.param(b'"a","b"\n"1","2"', id="quoted, no newline at the end"),
        pytest.param(b"\n\na,b\n\n1,2\n,\n\n", id="blank lines and a row of nothing"),
    ],
)
def test_csv_is_read_in_all_its_dialects(content):
    assert [fields for _, fields in read(content)] == [{"a": "1", "b": "2"}]


def test_a_quoted_field_may_span_lines_and_the_next_row_has_its_own_line_number():
    assert read(b'a,b\n"x\ny","say ""hi"""\n3,4\n') == [
        (2, {"a": "x\ny", "b": 'say "hi"'}),
        (4, {"a": "3", "b": "4"}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'"open,2', "a quotation mark is not closed", id="open quote"),
        pytest.param(b'"x"y,2', "something follows a closing quotation mark", id="text after a quote"),
        pytest.param(b"J\xfcrgen,2", "it is not UTF-8", id="latin-1"),
        pytest.param(b"a\0b,2", "it has a NUL character", id="NUL"),
        pytest.param(b"1", "it has 1 fields, not 2", id="too few"),
        pytest.param(b"1,2,3", "it has 3 fields, not 2", id="too many"),
    ],
)
def test_a_faulty_csv_line_does_not_hide_the_next(line, reason):
    assert read(b"a,b\n" + line + b"\n5,6\n") == [(2, reason), (3, {"a": "5", "b": "6"})]


def test_an_inch_mark_within_a_field_is_no_quotation():
    assert [fields for _, fields in read(b"a,b\n5'10\",x\n6'1\",y\n")] == [
        {"a": "5'10\"", "b": "x"},
        {"a": "6'1\"", "b": "y"},
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b"{", "it is no JSON", id="cut off"),
        pytest.param(b"[1]", "it is no JSON object", id="an array"),
        pytest.param(b'{"a": NaN}', "NaN", id="NaN"),
        pytest.param(b'{"a": 1e999}', "too large", id="infinity"),
        pytest.param(b'{"a": "\\u0000"}', "no database keeps", id="NUL"),
        pytest.param(b'{"a": "\\ud800"}', "no database keeps", id="half a pair"),
        pytest.param(b'{"a": "\xfc"}', "not UTF-8", id="latin-1"),
        pytest.param(b"[" * 100_000, "it is no JSON", id="nested without end"),
    ],
)
def test_a_faulty_json_line_does_not_hide_the_next(line, reason):
    first, second = read(line + b'\n\n{"a": 1}\n', "jsonl")
    assert first[0] == 1
    assert reason in str(first[1])
    assert second == (3, {"a": 1})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param("a,b\n1,2\n".encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param(b"a,b\r1,2\r", "CR alone", id="CR alone"),
        pytest.param(b"a,a\n1,2\n", "twice: a", id="a column twice"),
        pytest.param(b'"a,b\n', "not closed", id="an open quote in the head"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_says_so(content, reason):
    with pytest.raises(InputError, match=reason):
        list(records.read(io.BytesIO(content), "csv"))


def test_a_line_without_end_takes_no_memory_beyond_its_limit():
    rows = read(b"a,b\n" + b"x" * 3_000_000 + b"\n1,2\n")
    assert rows[-1] == (3, {"a": "1", "b": "2"})


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=2, max_size=2)))
def test_what_the_csv_module_writes_is_read_as_it_was(rows):
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([["left", "right"], *rows])
    expected = [{"left": left, "right": right} for left, right in rows if left or right]
    assert [fields for _, fields in read(file.getvalue().encode()) if any(fields.values())] == expected


@given(st.binary())
def test_no_octets_raise_anything_but_an_input_error(content):
    for form in ("csv", "jsonl"):
        odd: list[object] = []
        with contextlib.suppress(InputError):
            odd = [fields for _, fields in read(content, form) if not isinstance(fields, dict | str)]
        assert odd == []


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        pytest.param("a.csv", b"{", "csv", id="by .csv"),
        pytest.param("a.JSONL", b"x", "jsonl", id="by .jsonl"),
        pytest.param("-", b'\xef\xbb\xbf\n {"a": 1}', "jsonl", id="by the brace"),
        pytest.param("-", b"a,b", "csv", id="else CSV"),
    ],
)
def test_the_format_is_known_by_the_name_or_the_first_character(name, content, form):
    assert records.format_of(name, io.BytesIO(content)) == form


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-0.50", -0.5),
        ("true", True),
        ("FALSE", False),
        (" ", None),
        ("01234", "01234"),
        ("+49 30", "+49 30"),
        ("2026-01-31", "2026-01-31"),
        ("12345678901234567890", "12345678901234567890"),
        ("1e5", "1e5"),
        ("tRUE", "tRUE"),
        ("nan", "nan"),
    ],
)
def test_a_csv_value_becomes_what_it_looks_like(text, value):
    assert guess(text) == value
    assert type(guess(text)) is type(value)


@given(st.lists(st.text(), unique=True), st.data())
def test_every_repeated_external_id_is_found(names, data):
    again = data.draw(st.lists(st.sampled_from(names))) if names else []
    assert set(again) <= repeats.repeated([*names, *again], octets=0)


def test_few_are_found_that_come_only_once():
    assert len(repeats.repeated(map(str, range(50_000)), octets=1_000_000)) < 500


# --- which column is what -------------------------------------------------------------------------------------


def test_columns_are_mapped_and_the_others_become_attributes(lite, tmp_path):
    lite.bring(
        "CustomerNo;E-Mail;Name;receive;zip;vip;note\nC1; Joe@Example.NET ;Joe;yes;123;true;\n",
        tmp_path,
        mapped=["external_id=CustomerNo", "address=E-Mail", "opt_in=receive"],
        as_text=["zip"],
        store="main",
    )
    row = lite.find("C1")
    assert (row.address, row.key, row.name) == ("Joe@Example.NET", "joe@example.net", "Joe")
    assert row.attributes == {"zip": "123", "vip": True}
    assert lite.wishes("C1") == {"main": (True, "import", NOW)}


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        pytest.param("id,address\n", {}, "no column external_id; the file has: id, address", id="no id"),
        pytest.param("external_id,mail\n", {}, "no column address or email", id="no address"),
        pytest.param(HEAD, {"mapped": ["name=Nom"]}, "no column Nom", id="mapped to nothing"),
        pytest.param(HEAD, {"mapped": ["nom=Nom"]}, "FIELD is one of: external_id", id="no such field"),
        pytest.param(HEAD, {"mapped": ["name"]}, "write FIELD=COLUMN", id="no equals sign"),
        pytest.param(HEAD, {"as_text": ["zip"]}, "--text zip", id="no such text"),
        pytest.param(HEAD, {"store": "main"}, "no column opt_in", id="a store without opt-ins"),
        pytest.param(
            "external_id,address,opt_in\n", {"store": None}, "--store: \\*, main, outlet", id="which store"
        ),
        pytest.param("external_id,address,opt_in\n", {"store": "x"}, "no store 'x'", id="unknown store"),
        pytest.param("external_id,address,consent_at\n", {}, "none for the opt-in", id="consent to what"),
    ],
)
def test_a_file_without_what_it_must_have_changes_nothing_and_says_what_to_do(
    lite, tmp_path, content, options, reason
):
    with pytest.raises(InputError, match=reason):
        lite.bring(content, tmp_path, **options)
    assert lite.names() == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(",a@example.net,,,,,", "external_id is missing", id="no id"),
        pytest.param(f"{'x' * 256},a@example.net,,,,,", "longer than 255", id="a long id"),
        pytest.param("1,,,,,,", "the address is missing", id="no address"),
        pytest.param("1,a.example.net,,,,,", "is no address", id="a bad address"),
        pytest.param(f"1,{'x' * 65}@example.net,,,,,", "is no address", id="65 octets before the @"),
        pytest.param('1,a@example.net,"x\ry",,,,', "name has a control character", id="a header in the name"),
        pytest.param("1,a@example.net,,german,,,", "no locale", id="a bad locale"),
        pytest.param("1,a@example.net,,,Berlin,,", "no time zone", id="a bad time zone"),
        pytest.param("1,a@example.net,,,../etc,,", "no time zone", id="a path as time zone"),
        pytest.param("1,a@example.net,,,,maybe,", "neither yes nor no", id="a bad wish"),
        pytest.param("1,a@example.net,,,,yes,soon", "no date and time", id="a bad date"),
        pytest.param("1,a@example.net,,,,yes,2026-11-25", "lies in the future", id="a future consent"),
        pytest.param("1,a@example.net,,,,yes,0001-01-01T00:00+05:00", "calendar", id="before the calendar"),
    ],
)
def test_a_faulty_row_is_told_with_its_line_and_the_rest_is_imported(lite, tmp_path, row, reason):
    head = "external_id,address,name,locale,time_zone,opt_in,consent_at\n"
    summary = lite.bring(f"{head}{row}\nok,ok@example.net,,,,,\n", tmp_path)
    assert (summary.read, summary.faults, summary.counts.new) == (2, 1, 1)
    assert summary.first_faults[0][0] == 2
    assert reason in summary.first_faults[0][1]
    assert lite.names() == ["ok"]


def test_json_keeps_its_own_types_and_may_nest_its_attributes(world, tmp_path):
    row = {"external_id": 7, "email": "a@example.net", "zip": "1", "tags": ["x"], "attributes": {"vip": True}}
    world.bring(json.dumps(row), tmp_path, form="jsonl", store="main")
    assert world.find("7").attributes == {"zip": "1", "tags": ["x"], "vip": True}


@pytest.mark.parametrize("value", [True, {"a": 1}, [1]], ids=str)
def test_json_that_is_no_text_where_text_belongs_is_a_fault(lite, tmp_path, value):
    row = {"external_id": value, "email": "a@example.net"}
    summary = lite.bring(json.dumps(row), tmp_path, form="jsonl", store="main")
    assert "external_id is no text" in summary.first_faults[0][1]


# --- faults beside the file -----------------------------------------------------------------------------------


def test_faulty_rows_are_written_beside_the_file_and_no_spreadsheet_runs_them(lite, tmp_path):
    summary = lite.bring(HEAD + "=cmd(),x\n", tmp_path)
    file = tmp_path / "people.csv.faults.csv"
    assert summary.faults_file == str(file)
    assert file.stat().st_mode & 0o077 == 0
    with file.open(newline="") as opened:
        rows = list(csv.reader(opened))
    assert rows[0] == ["line", "reason", "text"]
    assert (rows[1][0], rows[1][2]) == ("2", "'=cmd(),x")


def test_an_import_without_faults_leaves_no_file_of_an_earlier_one(lite, tmp_path):
    lite.bring(HEAD + "1,x\n", tmp_path)
    lite.bring(HEAD + "1,a@example.net\n", tmp_path)
    assert list(tmp_path.glob("*.faults.csv")) == []


def test_a_file_that_is_missing_is_said_in_a_line(tmp_path):
    with pytest.raises(InputError, match="No such file"), importing.opened(str(tmp_path / "none.csv")):
        pass


def test_a_pipe_is_read_twice_as_well():
    reading, writing = os.pipe()
    os.write(writing, b"a")
    os.close(writing)
    try:
        with importing.opened(f"/dev/fd/{reading}") as stream:
            stream.seek(0)
            assert (stream.read(), stream.seek(0), stream.read()) == (b"a", 0, b"a")
    finally:
        os.close(reading)


# --- what becomes of it ---------------------------------------------------------------------------------------


def test_the_same_file_again_changes_nothing(world, tmp_path):
    rows = "".join(f"{n},p{n % 40}@d{n % 3}.net,N,de,Europe/Berlin,{n % 2},{n},x\n" for n in range(50))
    content = f"external_id,email,name,locale,time_zone,opt_in,score,tag\n{rows}7,p8@d1.net,Later,,,,,\n"
    first = world.bring(content, tmp_path)
    before = world.everything()
    second = world.bring(content, tmp_path, now=NOW + DAY)
    assert (
        first.numbers() | {"read": 51, "new": 50, "repeated": 1, "opted_in": 24, "opted_out": 25}
        == first.numbers()
    )
    assert (
        second.numbers() | {"unchanged": 50, "repeated": 1, "opted_in": 0, "opted_out": 0} == second.numbers()
    )
    assert world.everything() == before


def test_the_last_row_about_a_person_wins_even_batches_later(lite, tmp_path):
    others = "".join(f"{n},p{n}@example.net\n" for n in range(BATCH * 2))
    summary = lite.bring(f"{HEAD}x,first@example.net\n{others}x,last@example.net\n", tmp_path)
    assert lite.find("x").address == "last@example.net"
    assert (summary.repeated, summary.counts.new) == (1, BATCH * 2 + 1)
    assert lite.ledger("address") == []


def test_the_log_of_sqlite_is_folded_in_on_the_way(lite, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_FOLD_EVERY", 1)
    log = Path(f"{lite.database.path}-wal")
    assert log.exists()
    lite.bring(HEAD + "".join(f"{n},p{n}@example.net\n" for n in range(BATCH + 1)), tmp_path)
    assert not log.exists()
    assert len(lite.names()) == BATCH + 1


def test_what_is_read_is_the_sum_of_what_became_of_it(lite, tmp_path):
    lite.bring(HEAD + "1,a@example.net\n2,b@example.net\n3,c@example.net\n", tmp_path)
    with lite.database.begin() as connection:
        erasing.erase(connection, lite.find("3").id, who="bob", now=NOW)
    content = (
        HEAD + "1,a@example.net\n2,new@example.net\n3,c@example.net\n4,x\n5,e@example.net\n5,f@example.net\n"
    )
    numbers = lite.bring(content, tmp_path).numbers()
    parts = ("new", "changed", "unchanged", "erased", "repeated", "faults")
    assert [numbers[part] for part in parts] == [1, 1, 1, 1, 1, 1]
    assert numbers["read"] == 6


def test_an_import_changes_only_what_its_columns_name(world, tmp_path):
    world.bring("external_id,address,name,a,b\n1,a@example.net,Joe,1,2\n", tmp_path)
    world.bring("external_id,address,b,c\n1,a@example.net,,3\n", tmp_path, now=NOW + DAY)
    row = world.find("1")
    assert (row.name, row.attributes) == ("Joe", {"a": 1, "c": 3})
    assert (row.created_at, row.changed_at) == (NOW, NOW + DAY)


def test_true_and_one_are_two_values(world, tmp_path):
    world.bring("external_id,address,a\n1,a@example.net,1\n", tmp_path)
    summary = world.bring("external_id,address,a\n1,a@example.net,true\n", tmp_path)
    assert summary.counts.changed == 1
    assert world.find("1").attributes["a"] is True


def test_two_people_may_share_an_address_and_its_domain_is_ascii(world, tmp_path):
    world.bring(HEAD + "1,A@bücher.example.net\n2,a@xn--bcher-kva.example.net\n", tmp_path)
    one, two = world.find("1"), world.find("2")
    assert one.address_id == two.address_id
    assert one.key == "a@xn--bcher-kva.example.net"


# --- wishes ---------------------------------------------------------------------------------------------------

IN, OUT = True, False


def before(receive: bool, source: Source) -> Wish:
    return Wish(receive, source, NOW - DAY)


@pytest.mark.parametrize(
    ("known", "receive", "consent", "expected"),
    [
        pytest.param(None, IN, None, Wish(IN, Source.IMPORT, NOW), id="first"),
        pytest.param(None, OUT, None, Wish(OUT, Source.IMPORT, NOW), id="first, no"),
        pytest.param(None, IN, NOW - HOUR, Wish(IN, Source.IMPORT, NOW - HOUR), id="first, with its time"),
        pytest.param(before(IN, Source.IMPORT), IN, None, None, id="the same"),
        pytest.param(
            before(IN, Source.IMPORT), OUT, None, Wish(OUT, Source.IMPORT, NOW), id="the file decides"
        ),
        *(
            pytest.param(before(OUT, source), IN, None, None, id=f"{source} stays")
            for source in Source
            if source is not Source.IMPORT
        ),
        *(
            pytest.param(
                before(OUT, source),
                IN,
                NOW - HOUR,
                Wish(IN, Source.USER, NOW - HOUR),
                id=f"newer than {source}",
            )
            for source in Source
        ),
        pytest.param(before(OUT, Source.UNSUBSCRIBE), IN, NOW - 2 * DAY, None, id="older consent"),
        pytest.param(before(OUT, Source.UNSUBSCRIBE), IN, NOW - DAY, None, id="consent of the same moment"),
        pytest.param(
            before(IN, Source.USER), OUT, NOW - HOUR, Wish(OUT, Source.USER, NOW - HOUR), id="a newer no"
        ),
    ],
)
def test_what_an_import_makes_of_a_wish(known, receive, consent, expected):
    assert wishes.decide(known, receive=receive, consent_at=consent, now=NOW) == expected


def test_each_first_wish_and_each_change_has_its_line_in_the_ledger(world, tmp_path):
    content = "external_id,address,opt_in\n1,a@example.net,{}\n2,b@example.net,\n"
    world.bring(content.format("yes"), tmp_path)
    summary = world.bring(content.format("no"), tmp_path)
    assert world.wishes("2") == {}
    assert (summary.counts.changed, summary.counts.opted_out) == (1, 1)
    assert world.ledger("opt_in") == [
        ("", "in (import)", "import", "alice"),
        ("in (import)", "out (import)", "import", "alice"),
    ]


def test_an_unsubscribe_outlives_the_nightly_import_until_a_newer_consent(world, tmp_path):
    content = "external_id,address,opt_in,consent_at\n1,a@example.net,yes,{}\n"
    world.bring(content.format("2026-01-01"), tmp_path)
    world.wish("1", receive=False, source=Source.UNSUBSCRIBE, now=NOW - DAY)
    world.bring(content.format("2026-01-01"), tmp_path)
    assert world.wishes("1")["main"][:2] == (False, "unsubscribe")
    consent = NOW - HOUR
    world.bring(content.format(consent.isoformat()), tmp_path)
    assert world.wishes("1")["main"] == (True, "user", consent)


@pytest.mark.parametrize(
    ("consent", "status"),
    [
        pytest.param(timedelta(hours=-1), RecipientStatus.UNDELIVERABLE, id="before it died"),
        pytest.param(timedelta(hours=1), RecipientStatus.PROBATION, id="after it died"),
    ],
)
def test_a_consent_newer_than_the_bounce_gives_probation_once(world, tmp_path, consent, status):
    world.bring("external_id,address,opt_in\n1,a@example.net,yes\n", tmp_path, now=NOW - 9 * DAY)
    died = NOW - DAY
    world.die("1", now=died)
    content = f"external_id,address,opt_in,consent_at\n1,a@example.net,yes,{(died + consent).isoformat()}\n"
    world.bring(content, tmp_path)
    assert world.status("1") is status
    rows = world.everything()
    world.bring(content, tmp_path, now=NOW + HOUR)
    assert world.everything() == rows


def test_a_changed_address_has_its_own_status_and_gives_back_what_the_bounce_took(world, tmp_path):
    world.bring("external_id,address,opt_in\n1,old@example.net,yes\n", tmp_path)
    world.die("1")
    world.wish("1", receive=False, source=Source.COMPLAINT, store="outlet")
    summary = world.bring(HEAD + "1,new@example.net\n", tmp_path, now=NOW + DAY)
    assert world.status("1") is RecipientStatus.DELIVERABLE
    assert world.wishes("1")["main"] == (True, "import", NOW + DAY)
    assert world.wishes("1")["outlet"][:2] == (False, "complaint")
    assert world.ledger("address") == [("old@example.net", "new@example.net", "import", "alice")]
    assert world.ledger("opt_in")[-1] == ("out (hard_bounce)", "in (import)", "import", "alice")
    assert (summary.counts.changed, summary.counts.opted_in) == (1, 1)


def test_a_changed_address_with_a_no_stays_out_and_the_ledger_says_it_once(world, tmp_path):
    world.bring("external_id,address,opt_in\n1,old@example.net,yes\n", tmp_path)
    world.die("1")
    lines = len(world.ledger("opt_in"))
    world.bring("external_id,address,opt_in\n1,new@example.net,no\n", tmp_path)
    assert world.wishes("1")["main"][:2] == (False, "import")
    assert world.ledger("opt_in")[lines:] == [("out (hard_bounce)", "out (import)", "import", "alice")]


def test_another_way_to_write_the_same_address_is_no_new_address(world, tmp_path):
    world.bring("external_id,address,opt_in\n1,Joe@example.net,yes\n", tmp_path)
    world.die("1")
    world.bring(HEAD + "1,joe@EXAMPLE.net\n", tmp_path)
    assert world.status("1") is RecipientStatus.UNDELIVERABLE
    assert world.wishes("1")["main"][0] is False
    assert world.ledger("address") == []


def test_an_opt_in_column_for_all_stores(world, tmp_path):
    world.bring("external_id,address,opt_in\n1,a@example.net,no\n", tmp_path, store="*")
    assert world.wishes("1") == {"*": (False, "import", NOW)}

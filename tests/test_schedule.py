"""Due times, windows and grace, above all in the nights in which the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound import schedule
from mailbound.errors import InputError
from mailbound.schedule import Missed, Start, Wait, Window

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu", "UTC"]

BEGINNING, END = datetime(2010, 1, 1), datetime(2040, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
moments = st.datetimes(BEGINNING, END, timezones=st.just(UTC))


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(text, where="Europe/Berlin"):
    return Window.thaw(schedule.parse_window(text), where)


# --- moments ----------------------------------------------------------------------------------------------

CHANGES = [
    pytest.param("Europe/Berlin", "2027-03-28 02:30", "2027-03-28 01:00", id="Berlin leaps an hour"),
    pytest.param("Europe/Berlin", "2027-03-28 02:00", "2027-03-28 01:00", id="the first moment of the gap"),
    pytest.param("Europe/Berlin", "2027-03-28 03:00", "2027-03-28 01:00", id="the first after the gap"),
    pytest.param("Europe/Berlin", "2026-10-25 02:30", "2026-10-25 00:30", id="Berlin has it twice"),
    pytest.param("Europe/Berlin", "2027-10-31 02:30", "2027-10-31 00:30", id="a year later too"),
    pytest.param("Europe/Berlin", "2026-10-25 03:00", "2026-10-25 02:00", id="the first after the overlap"),
    pytest.param("America/New_York", "2027-03-14 02:30", "2027-03-14 07:00", id="New York leaps"),
    pytest.param("America/New_York", "2026-11-01 01:30", "2026-11-01 05:30", id="New York has it twice"),
    pytest.param(
        "Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03 15:30", id="Lord Howe leaps half an hour"
    ),
    pytest.param("Australia/Lord_Howe", "2027-04-04 01:45", "2027-04-03 14:45", id="Lord Howe has it twice"),
    pytest.param("Pacific/Apia", "2011-12-30 10:00", "2011-12-30 10:00", id="Samoa leaps a day"),
    pytest.param("Asia/Kathmandu", "2026-12-01 09:00", "2026-12-01 03:15", id="no change at all"),
]


@pytest.mark.parametrize(("where", "local", "expected"), CHANGES)
def test_a_local_time_means_its_first_valid_instant(where, local, expected):
    assert schedule.instant(datetime.fromisoformat(local), ZoneInfo(where)) == utc(expected)
    assert schedule.parse_when(local, where, NOW) == utc(expected)
    assert schedule.parse_when(f"{local} {where}", "UTC", NOW) == utc(expected)


@given(moments, st.sampled_from(ZONES))
def test_an_instant_is_the_first_at_which_the_clock_shows_as_much(moment, where):
    place = ZoneInfo(where)
    local = moment.replace(tzinfo=None, microsecond=0)
    found = schedule.instant(local, place)
    assert found.tzinfo is UTC
    assert found.astimezone(place).replace(tzinfo=None) >= local
    assert (found - timedelta(seconds=1)).astimezone(place).replace(tzinfo=None) < local


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        (" now ", NOW),
        ("in 2 seconds", NOW + timedelta(seconds=2)),
        ("in 1 hour", NOW + HOUR),
        ("+10m", NOW + 10 * MINUTE),
        ("+ 3 days", NOW + timedelta(days=3)),
        ("+1w", NOW + timedelta(weeks=1)),
        ("2026-12-01 09:00", utc("2026-12-01 08:00")),
        ("2026-12-01T09:00:30", utc("2026-12-01 08:00:30")),
        ("2026-12-01 09:00Z", utc("2026-12-01 09:00")),
        ("2026-12-01 09:00 +05:30", utc("2026-12-01 03:30")),
        ("2026-12-01T09:00-0800", utc("2026-12-01 17:00")),
        ("2026-12-01  09:00   America/New_York", utc("2026-12-01 14:00")),
    ],
)
def test_a_time_is_understood(text, expected):
    found = schedule.parse_when(text, "Europe/Berlin", NOW)
    assert found == expected
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no time; write 2026-12-01 09:00, now, in 2 hours or +10m"),
        ("yesterday", "'yesterday' is no time; write"),
        ("2026-12-01", "'2026-12-01' is no time; write"),
        ("01.12.2026 09:00", "'01.12.2026 09:00' is no time; write"),
        ("2026-02-30 09:00", "2026-02-30 09:00 Europe/Berlin does not exist in the calendar"),
        ("2026-12-01 25:00", "2026-12-01 25:00 Europe/Berlin does not exist in the calendar"),
        ("2026-12-01 09:00 +99:00", "2026-12-01 09:00 +99:00 does not exist in the calendar"),
        (
            "9999-12-31 23:59 America/New_York",
            "9999-12-31 23:59 America/New_York does not exist in the calendar",
        ),
        ("2026-12-01 09:00 Europe/Berln", "Europe/Berln is no time zone; did you mean Europe/Berlin?"),
        ("2026-12-01 09:00 Xyzzy", "Xyzzy is no time zone; write for example Europe/Berlin or UTC"),
    ],
)
def test_a_time_that_is_none_names_the_mend(text, message):
    with pytest.raises(InputError) as raised:
        schedule.parse_when(text, "Europe/Berlin", NOW)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/localtime", "", ".", "Europe", "a\x00b"])
def test_a_zone_is_no_path(name):
    with pytest.raises(InputError, match="is no time zone"):
        schedule.zone(name)


# --- due times --------------------------------------------------------------------------------------------


def due(cron, where, after, until, starts_at=None):
    found = schedule.occurrences(
        starts_at=starts_at, cron=cron, where=ZoneInfo(where), after=utc(after), until=utc(until)
    )
    return [f"{moment:%Y-%m-%d %H:%M}" for moment in found]


@pytest.mark.parametrize(
    ("cron", "where", "after", "until", "expected"),
    [
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2027-03-27 00:00",
            "2027-03-29 12:00",
            ["2027-03-27 01:30", "2027-03-28 01:00", "2027-03-29 00:30"],
            id="Berlin leaps over it",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24 12:00",
            "2026-10-26 12:00",
            ["2026-10-25 00:30", "2026-10-26 01:30"],
            id="Berlin has it twice",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-25 00:45",
            "2026-10-26 12:00",
            ["2026-10-26 01:30"],
            id="asked between the two",
        ),
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2026-10-25 00:30", "2026-10-26 01:29", [], id="asked at the first"
        ),
        pytest.param(
            "30 2 * * *",
            "America/New_York",
            "2027-03-13 12:00",
            "2027-03-15 12:00",
            ["2027-03-14 07:00", "2027-03-15 06:30"],
            id="New York leaps over it",
        ),
        pytest.param(
            "30 1 * * *",
            "America/New_York",
            "2026-10-31 12:00",
            "2026-11-02 12:00",
            ["2026-11-01 05:30", "2026-11-02 06:30"],
            id="New York has it twice",
        ),
        pytest.param(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03 12:00",
            "2026-10-04 23:00",
            ["2026-10-03 15:30", "2026-10-04 15:15"],
            id="Lord Howe leaps over it",
        ),
        pytest.param(
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2027-04-03 12:00",
            "2027-04-04 23:00",
            ["2027-04-03 14:45", "2027-04-04 15:15"],
            id="Lord Howe has it twice",
        ),
        pytest.param(
            "0 * * * *",
            "Europe/Berlin",
            "2026-10-24 23:00",
            "2026-10-25 02:00",
            ["2026-10-25 00:00", "2026-10-25 01:00", "2026-10-25 02:00"],
            id="every hour is every real hour",
        ),
        pytest.param(
            "0 9 L * *",
            "UTC",
            "2026-01-31 09:00",
            "2026-03-31 09:00",
            ["2026-02-28 09:00", "2026-03-31 09:00"],
            id="the end is in, the start is not",
        ),
    ],
)
def test_cron_comes_due(cron, where, after, until, expected):
    assert due(cron, where, after, until) == expected


def test_one_date_comes_due_once():
    start = utc("2026-12-01 09:00")
    assert due(None, "UTC", "2026-12-01 08:59", "2026-12-01 09:00", start) == ["2026-12-01 09:00"]
    assert due(None, "UTC", "2026-12-01 09:00", "2027-01-01 00:00", start) == []
    assert due(None, "UTC", "2026-11-01 09:00", "2026-12-01 08:59", start) == []


def test_cron_begins_with_its_start():
    start = utc("2026-12-02 09:00")
    found = due("0 9 * * *", "UTC", "2026-11-01 00:00", "2026-12-03 12:00", start)
    assert found == ["2026-12-02 09:00", "2026-12-03 09:00"]


@given(
    moments,
    st.sampled_from(ZONES),
    st.sampled_from(["30 2 * * *", "*/20 * * * *", "0 1-3 * * sun", "15 0,2 1 * *"]),
)
def test_asking_in_pieces_gives_the_same_as_asking_at_once(start, where, cron):
    def ask(after, until):
        return list(
            schedule.occurrences(starts_at=None, cron=cron, where=ZoneInfo(where), after=after, until=until)
        )

    end = start + timedelta(hours=7)
    steps = [start + step * timedelta(minutes=52, seconds=30) for step in range(9)]
    whole = ask(start, end)
    assert [moment for after, until in pairwise(steps) for moment in ask(after, until)] == whole
    assert whole == sorted(set(whole))
    assert all(start < moment <= end for moment in whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cron expression '' does not have five fields; write minute, hour"),
        ("@daily", "cron expression '@daily' does not have five fields"),
        ("0 30 8 * * *", "cron expression '0 30 8 * * *' does not have five fields"),
        ("61 * * * *", "cron expression '61 * * * *': bad minute; write"),
        ("0 8 * * xyz", "cron expression '0 8 * * xyz': bad day-of-week; write"),
        ("0 8 30 2 *", "cron expression '0 8 30 2 *': bad day-of-month; write"),
    ],
)
def test_a_bad_cron_expression_names_the_field(text, message):
    with pytest.raises(InputError) as raised:
        schedule.parse_cron(text)
    assert str(raised.value).startswith(message)


def test_a_cron_expression_is_spaced_neatly():
    assert schedule.parse_cron("  30 8  *\t* mon-fri ") == "30 8 * * mon-fri"


# --- windows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            "mon-fri 09:00-17:00",
            {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:00"},
        ),
        ("Monday, wed 9:00 - 17:30", {"days": ["mon", "wed"], "from": "09:00", "to": "17:30"}),
        ("fri-mon 22:00-06:00", {"days": ["mon", "fri", "sat", "sun"], "from": "22:00", "to": "06:00"}),
        ("00:00-24:00", {"days": list(schedule.DAYS), "from": "00:00", "to": "00:00"}),
        (
            "daily 08:00-20:00 UTC",
            {"days": list(schedule.DAYS), "from": "08:00", "to": "20:00", "zone": "UTC"},
        ),
    ],
)
def test_a_window_is_understood(text, kept):
    assert schedule.parse_window(text) == kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "window '' has no hours; write for example mon-fri 09:00-17:00"),
        ("mon-fri", "window 'mon-fri' has no hours"),
        ("mon-fri 09:00-25:00", "25:00 is no time of day; write 00:00 to 24:00"),
        (
            "mon-fri 09:00-09:00",
            "window 'mon-fri 09:00-09:00' closes when it opens; for the whole day write 00:00",
        ),
        ("mon-fry 09:00-17:00", "'fry' is no day of the week; write mon, tue"),
        ("09:00-17:00 Europe/Berln", "Europe/Berln is no time zone; did you mean Europe/Berlin?"),
    ],
)
def test_a_bad_window_names_the_mend(text, message):
    with pytest.raises(InputError) as raised:
        schedule.parse_window(text)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        pytest.param(
            "mon-fri 09:00-17:00", "2026-11-24 08:00", "2026-11-24 08:00", id="at the moment it opens"
        ),
        pytest.param("mon-fri 09:00-17:00", "2026-11-24 07:59", "2026-11-24 08:00", id="a minute before"),
        pytest.param("mon-fri 09:00-17:00", "2026-11-24 12:00", "2026-11-24 12:00", id="open"),
        pytest.param(
            "mon-fri 09:00-17:00", "2026-11-24 16:00", "2026-11-25 08:00", id="at the moment it closes"
        ),
        pytest.param("mon-fri 09:00-17:00", "2026-11-27 16:00", "2026-11-30 08:00", id="over the weekend"),
        pytest.param("fri 22:00-06:00", "2026-11-28 04:00", "2026-11-28 04:00", id="open past midnight"),
        pytest.param("fri 22:00-06:00", "2026-11-28 05:00", "2026-12-04 21:00", id="closed in the morning"),
        pytest.param("00:00-24:00", "2026-11-24 23:30", "2026-11-24 23:30", id="always open"),
        pytest.param(
            "sun 02:10-04:00", "2027-03-28 00:30", "2027-03-28 01:00", id="its opening is leapt over"
        ),
        pytest.param("sun 02:10-02:50", "2027-03-28 00:30", "2027-04-04 00:10", id="all of it is leapt over"),
        pytest.param(
            "sun 02:30-03:00", "2026-10-25 01:30", "2026-10-25 01:30", id="open while the hour is repeated"
        ),
        pytest.param("sun 03:00-04:00", "2026-10-25 01:30", "2026-10-25 02:00", id="after the repeated hour"),
    ],
)
def test_a_window_opens(text, now, expected):
    assert window(text).opens(utc(now)) == utc(expected)
    assert window(text).contains(utc(now)) is (now == expected)


@given(
    moments,
    st.sampled_from(ZONES),
    st.sampled_from(["mon-fri 09:00-17:00", "22:00-03:30", "sun 02:10-02:50"]),
)
def test_a_window_is_open_from_the_moment_that_it_opens(now, where, text):
    opening = window(text, where).opens(now)
    assert opening >= now
    assert window(text, where).contains(opening)
    assert opening == now or not window(text, where).contains(opening - timedelta(microseconds=1))
    assert window(text, where).open_between(now, opening) == timedelta()


@given(moments, st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_time_a_window_is_open_adds_up(start, first, second):
    middle, end = start + first * MINUTE, start + (first + second) * MINUTE
    hours = window("tue-thu 21:00-03:00")
    assert hours.open_between(start, middle) + hours.open_between(middle, end) == hours.open_between(
        start, end
    )
    assert window("00:00-24:00").open_between(start, end) == end - start


def test_a_window_without_days_would_never_open():
    with pytest.raises(InputError, match="opens on no day"):
        Window.thaw({"days": [], "from": "09:00", "to": "17:00"}, "UTC")


# --- starting ---------------------------------------------------------------------------------------------

OFFICE = "mon-fri 09:00-17:00"


@pytest.mark.parametrize(
    ("hours", "due", "now", "expected"),
    [
        pytest.param(None, "2026-11-24 10:00", "2026-11-24 10:00", Start(), id="on time"),
        pytest.param(None, "2026-11-24 10:00", "2026-11-24 11:00", Start(), id="within its grace"),
        pytest.param(None, "2026-11-24 10:00", "2026-11-24 11:01", Missed(HOUR + MINUTE), id="too late"),
        pytest.param(
            None, "2026-11-24 10:00", "2026-11-24 09:00", Wait(utc("2026-11-24 10:00")), id="too early"
        ),
        pytest.param(
            OFFICE, "2026-11-24 07:00", "2026-11-24 06:00", Wait(utc("2026-11-24 08:00")), id="not yet due"
        ),
        pytest.param(
            OFFICE, "2026-11-24 07:00", "2026-11-24 07:30", Wait(utc("2026-11-24 08:00")), id="closed"
        ),
        pytest.param(OFFICE, "2026-11-20 17:00", "2026-11-23 08:30", Start(), id="a weekend is not counted"),
        pytest.param(
            OFFICE, "2026-11-20 17:00", "2026-11-23 09:01", Missed(HOUR + MINUTE), id="Monday is counted"
        ),
        pytest.param(
            OFFICE, "2026-11-20 15:30", "2026-11-23 08:30", Start(), id="half an hour here and there"
        ),
        pytest.param(
            OFFICE,
            "2026-11-20 15:30",
            "2026-11-21 12:00",
            Wait(utc("2026-11-23 08:00")),
            id="closed with grace left",
        ),
        pytest.param(
            OFFICE, "2026-11-20 14:00", "2026-11-21 12:00", Missed(2 * HOUR), id="too late, and closed"
        ),
    ],
)
def test_a_due_run_starts_or_waits_or_is_missed(hours, due, now, expected):
    chosen = window(hours) if hours else None
    assert schedule.decide(utc(due), now=utc(now), grace=HOUR, window=chosen) == expected


# --- by each recipient's own clock ------------------------------------------------------------------------


def hours(text, where="Europe/Berlin", *, by_recipient=True):
    return schedule.Hours(schedule.parse_window(text, by_recipient=by_recipient), where)


_MORNING = "daily 09:00-10:00"


@pytest.mark.parametrize(
    ("zone", "now", "opens"),
    [
        ("Europe/Berlin", "2026-11-24 07:30", "2026-11-24 08:00"),
        ("America/New_York", "2026-11-24 07:30", "2026-11-24 14:00"),
        ("Australia/Lord_Howe", "2026-11-24 07:30", "2026-11-24 22:00"),
        ("", "2026-11-24 07:30", "2026-11-24 08:00"),
        ("Mars/Olympus", "2026-11-24 07:30", "2026-11-24 08:00"),
        # The clocks go forward, and back: the same hour there is another one here.
        ("Europe/Berlin", "2027-03-27 12:00", "2027-03-28 07:00"),
        ("Europe/Berlin", "2026-10-24 12:00", "2026-10-25 08:00"),
        ("America/New_York", "2027-03-13 18:00", "2027-03-14 13:00"),
        ("America/New_York", "2026-10-31 18:00", "2026-11-01 14:00"),
        ("Australia/Lord_Howe", "2026-10-03 01:00", "2026-10-03 22:00"),
        ("Australia/Lord_Howe", "2027-04-03 01:00", "2027-04-03 22:30"),
    ],
)
def test_a_window_opens_by_the_clock_of_the_recipient(zone, now, opens):
    chosen = hours(_MORNING)
    assert chosen.opens(zone, utc(now)) == utc(opens)
    assert chosen.opens(zone, utc(opens)) == utc(opens), "and then it is open"
    assert chosen.of_run is None, "somewhere it is always open"


def test_a_zone_of_the_window_is_for_those_without_one():
    chosen = hours("09:00-10:00 Asia/Tokyo")
    assert chosen.opens("", utc("2026-11-24 00:30")) == utc("2026-11-24 00:30")
    assert chosen.opens("UTC", utc("2026-11-24 00:30")) == utc("2026-11-24 09:00")


def test_a_window_of_the_run_is_the_same_for_everybody():
    chosen = hours(_MORNING, by_recipient=False)
    assert chosen.of_run == window(_MORNING)
    assert chosen.opens("America/New_York", utc("2026-11-24 08:30")) == utc("2026-11-24 08:30")


def test_without_a_window_it_is_always_open():
    chosen = schedule.Hours(None, "UTC")
    assert chosen.of_run is None
    assert chosen.opens("Asia/Tokyo", utc("2026-11-24 08:30")) == utc("2026-11-24 08:30")

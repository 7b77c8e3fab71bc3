from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound.model import Reply
from mailbound.status import StatusCode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("5.1.1", "5.1.1", id="alone"),
        pytest.param("550 5.1.1 no such user", "5.1.1", id="after a reply code"),
        pytest.param("550-5.7.26 This mail", "5.7.26", id="in the middle of a reply"),
        pytest.param("mailbox unavailable (#5.1.1)", "5.1.1", id="qmail's way"),
        pytest.param("4.2.2 and then 5.1.1", "4.2.2", id="first of two"),
        pytest.param("it failed with 5.0.0.", "5.0.0", id="end of a sentence"),
        pytest.param("status=5.2.2;", "5.2.2", id="log line"),
        pytest.param("5.999.999", "5.999.999", id="largest"),
        pytest.param("6.1.1 3.1.1 1.1.1 0.1.1", None, id="classes that are not"),
        pytest.param("connected to 5.1.1.20", None, id="IPv4 address"),
        pytest.param("10.5.1.1 said no", None, id="end of an IPv4 address"),
        pytest.param("Exim 4.96.1", None, id="Exim's version"),
        pytest.param("version 5.1.1 of it", None, id="version"),
        pytest.param("v4.2.1", None, id="version with a v"),
        pytest.param("mailer-4.2.1", None, id="file name"),
        pytest.param("(5.7.1/8.14.4)", None, id="pair of versions"),
        pytest.param("5.01.1", None, id="leading zero (RFC 3463 §2)"),
        pytest.param("5.1.1234", None, id="too long"),
        pytest.param("on 5.12.2024", None, id="date"),
        pytest.param("x@5.1.1", None, id="right of an @-sign"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_the_first_code_in_a_text_is_found(text, expected):
    found = StatusCode.find(text)
    assert (str(found) if found else None) == expected


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        pytest.param(550, "5.1.1 no such user", "5.1.1", id="plain"),
        pytest.param(552, "over\n5.2.2 quota", "5.2.2", id="second line"),
        pytest.param(552, "4.2.2 odd\n5.2.2 quota", "5.2.2", id="line of another class is passed over"),
        pytest.param(250, "5.1.1 fine", None, id="class differs from the code (RFC 2034 §4)"),
        pytest.param(550, "no such user", None, id="none"),
    ],
)
def test_the_code_of_a_reply_has_the_class_of_the_reply(code, text, expected):
    found = StatusCode.of_reply(Reply(code, text))
    assert (str(found) if found else None) == expected


def test_codes_sort_by_number_and_not_by_letter():
    assert StatusCode(5, 7, 9) < StatusCode(5, 7, 26)


def test_only_x_0_0_is_bare():
    assert StatusCode(4, 0, 0).is_bare
    assert not StatusCode(5, 0, 1).is_bare
    assert not StatusCode(5, 1, 0).is_bare


@given(st.builds(StatusCode, st.sampled_from([2, 4, 5]), st.integers(0, 999), st.integers(0, 999)))
def test_what_is_written_is_found_again(code):
    assert StatusCode.find(str(code)) == code


@given(st.text())
def test_any_text_can_be_searched(text):
    found = StatusCode.find(text)
    assert found is None or str(found) in text

from __future__ import annotations

import string

import email_validator
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound import address
from mailbound.errors import InputError


@pytest.mark.parametrize(
    ("text", "given_", "key"),
    [
        pytest.param("bob@x.example", "bob@x.example", "bob@x.example", id="plain"),
        pytest.param(" bob@x.example\t", "bob@x.example", "bob@x.example", id="blanks around it"),
        pytest.param("Bob@X.Example", "Bob@X.Example", "bob@x.example", id="case is kept, not compared"),
        pytest.param('"bob"@x.example', '"bob"@x.example', "bob@x.example", id="needless quotes"),
        pytest.param('"b\\ob"@x.example', '"b\\ob"@x.example', "bob@x.example", id="needless escape"),
        pytest.param('"a b"@x.example', '"a b"@x.example', '"a b"@x.example', id="needed quotes"),
        pytest.param(
            "a@Bücher.test", "a@xn--bcher-kva.test", "a@xn--bcher-kva.test", id="IDN becomes A-labels"
        ),
        pytest.param("o'hara+x=y@x.test", "o'hara+x=y@x.test", "o'hara+x=y@x.test", id="odd atoms, .test"),
        pytest.param("b@\u212a.example", "b@k.example", "b@k.example", id="Kelvin sign"),
    ],
)
def test_an_address_is_normalised(text, given_, key):
    assert address.normalise(text) == address.Address(given_, key, key.rpartition("@")[2])


def test_a_non_ascii_local_part_is_kept_and_needs_smtputf8():
    found = address.normalise("Jürgen@Bücher.example")
    assert found == address.Address(
        "Jürgen@xn--bcher-kva.example", "jürgen@xn--bcher-kva.example", "xn--bcher-kva.example", utf8=True
    )


def test_composed_and_decomposed_letters_are_the_same():
    assert address.same("ju\u0308rgen@x.example", "jürgen@x.example")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "must have an @-sign", id="nothing"),
        pytest.param("bob", "must have an @-sign", id="no domain"),
        pytest.param("@x.example", "something before", id="no local part"),
        pytest.param("bob@x", "should have a period", id="no dot"),
        pytest.param("a..b@x.example", "two periods in a row", id="two dots"),
        pytest.param(".a@x.example", "start with a period", id="first dot"),
        pytest.param("a" * 65 + "@x.example", "too long before", id="65 octets before the @-sign"),
        pytest.param("ü" * 33 + "@x.example", "64 octets", id="66 octets of UTF-8"),
        pytest.param("a@" + "b" * 64 + ".example", "too many characters|so many characters", id="long label"),
        pytest.param("a@" + "b23456789." * 26 + "example", "too long", id="long domain"),
        pytest.param("a@[192.0.2.1]", "not allowed", id="address literal"),
        pytest.param("a@192.0.2.1", "not within a valid top-level domain", id="bare IP address"),
        pytest.param("a@xn--zz.example", "not valid IDNA", id="broken A-label"),
        pytest.param("a@x.invalid", "special-use or reserved", id="reserved domain"),
        pytest.param("@relay.example:bob@x.example", "before the @-sign", id="source route"),
        pytest.param("bob@x.example> NOTIFY=NEVER", "invalid characters", id="parameter behind it"),
        pytest.param("bob@x.example, eve@x.example", "invalid characters", id="two"),
        pytest.param("bob@x.example\r\nRSET", "invalid characters", id="command behind it"),
        pytest.param("bob@x.example\n", "invalid characters", id="newline at its end"),
        pytest.param('"a\x07"@x.example', "invalid characters", id="control character in quotes"),
        pytest.param("bob\x00@x.example", "invalid characters", id="NUL"),
        pytest.param("Bob <bob@x.example>", "display name", id="display name"),
        pytest.param("<bob@x.example>", "display name", id="angle brackets"),
        pytest.param("bob(x)@x.example", "invalid characters", id="comment"),
        pytest.param("bob@x\u2028.example", "unsafe characters", id="line separator"),
        pytest.param("\ud800@x.example", "", id="lone surrogate"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text, reason):
    with pytest.raises(InputError, match=f"is no address: .*({reason})"):
        address.normalise(text)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param("Bob@X.example", "bob@x.EXAMPLE", True, id="case"),
        pytest.param('"bob"@x.example', "bob@x.example", True, id="quotes"),
        pytest.param("bob@bücher.example", "bob@xn--bcher-kva.example", True, id="IDN"),
        pytest.param("bob@x.example", "rob@x.example", False, id="different"),
        pytest.param("No Address", "no address ", True, id="no address at all"),
    ],
)
def test_addresses_are_compared(one, other, expected):
    assert address.same(one, other) is expected
    assert address.same(other, one) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice@example.com", "a***@example.com"),
        ("@example.com", "***@example.com"),
        ("alice", "***"),
        ("\x1b[2J@example.com", "***@example.com"),
    ],
)
def test_a_masked_address_shows_its_first_letter_and_domain(text, expected):
    assert address.masked(text) == expected


def test_an_address_is_masked_as_its_text_is():
    assert address.masked(address.normalise("alice@example.com")) == "a***@example.com"


_letters = st.text(string.ascii_letters + string.digits + ".-_+'=!@", min_size=1, max_size=70)
_labels = st.lists(st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=65), max_size=4)
_tops = st.sampled_from(["com", "COM", "test", "invalid", "local", "arpa", "x", "1", "xn--p1ai", "museum"])


@given(_letters, _labels, _tops)
def test_the_fast_way_and_the_validator_agree(local, labels, top):
    text = f"{local}@{'.'.join([*labels, top])}"
    try:
        valid = email_validator.validate_email(
            text, allow_quoted_local=True, strict=True, check_deliverability=False, test_environment=True
        )
    except email_validator.EmailNotValidError:
        with pytest.raises(InputError):
            address.normalise(text)
    else:
        found = address.normalise(text)
        assert (found.key, found.domain) == (valid.ascii_email.lower(), valid.ascii_domain.lower())
        assert found.given == text


@given(st.text(max_size=40))
def test_whatever_passes_can_stand_in_an_envelope(text):
    try:
        found = address.normalise(text + "@example.com")
    except InputError:
        return
    assert found.given.isprintable()
    assert len(found.given.encode()) <= 254
    assert address.normalise(found.given).key == found.key

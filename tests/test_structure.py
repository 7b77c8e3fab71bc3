"""What a part says: its characters, and how much of it is looked at."""

from __future__ import annotations

import base64
import codecs

import pytest

from mailbound.reading import read, structure

WORDS = "Ihre Nachricht wurde nicht zugestellt:\r\n\r\n<jörg@x.example>: 550 5.1.1 一 not known\r\n"
MARKS = {
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("codec", MARKS)
@pytest.mark.parametrize("named", ["{0}-{1}", "{0}{1}", "{0}", "{0}_{1}"])
def test_characters_of_two_or_four_octets_are_read(codec: str, named: str) -> None:
    charset = named.format(codec[:6], codec[7:])
    written = WORDS.encode(codec)
    assert structure.text_of(written, charset) == WORDS
    assert structure.text_of(MARKS[codec] + written, charset) == WORDS


def test_a_text_is_no_wide_one_because_it_says_so() -> None:
    assert structure.text_of(b"Not delivered", "utf-16") == "Not delivered"


@pytest.mark.parametrize("octets", [b"a\0b", b"\0", b"\0\xd8\0\0", b"\xff\xfe\0\0\0"])
@pytest.mark.parametrize("charset", ["utf-16", "utf-16be", "utf-32", "utf-32le"])
def test_what_is_no_character_in_a_wide_text_is_shown_to_be_none(octets: bytes, charset: str) -> None:
    assert "\ufffd" in structure.text_of(octets, charset)


@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
@pytest.mark.parametrize("charset", ["utf-16", "utf-16le", "utf-16be", "utf-32"])
def test_a_report_in_a_wide_charset_is_read(kind: str, charset: str) -> None:
    words = WORDS if kind == "text/plain" else WORDS.replace("<", "&lt;").replace("\r\n", "<br>")
    mail = (
        f"Return-Path: <>\nFrom: MAILER-DAEMON@x.example\nSubject: Unzustellbar\n"
        f"Content-Type: {kind}; charset={charset}\nContent-Transfer-Encoding: base64\n\n"
    ).encode() + base64.encodebytes(words.encode(charset))
    (one,) = read(mail).recipients
    assert (one.final_recipient, str(one.status)) == ("jörg@x.example", "5.1.1")
    assert "一 not known" in one.diagnostic_code


def test_a_header_in_a_wide_charset_is_read() -> None:
    word = base64.b64encode("Unzustellbar: 一".encode("utf-16-be")).decode()
    assert structure.decoded_words(f"=?utf-16be?b?{word}?=") == "Unzustellbar: 一"

"""What a part says: its characters, and how much of it is looked at."""

from __future__ import annotations

import base64
import codecs
from pathlib import Path

import pytest

from mailbound import bounds
from mailbound.reading import dsn, layout, naming, read, structure
from mailbound.reading import mail as mail_module
from mailbound.reading.mail import Mail

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


@pytest.mark.parametrize("brace", [b"{", b"=7B"])
def test_an_object_is_read_however_its_braces_are_written(brace: bytes) -> None:
    mail = (
        b"From: no-reply@sns.example\nContent-Transfer-Encoding: quoted-printable\n\n"
        + brace
        + b'"notificationType":"Bounce","mail":'
        + brace
        + b'},"bounce":'
        + brace
        + b'"bouncedRecipients":['
        + brace
        + b'"emailAddress":"bob@x.example"}]}}\n'
    )
    assert [one.final_recipient for one in read(mail).recipients] == ["bob@x.example"]


@pytest.mark.parametrize(
    ("stated", "boundary"),
    [
        ("b", "b"),
        ('"a b"', "a b"),
        ('"a\\"b"', 'a"b'),
        ('"a\\\\"', "a\\"),
        ("a\\b", "a\\b"),
        ('"a', "a"),
        ('""', ""),
    ],
)
def test_a_parameter_is_read_as_it_is_quoted(stated: str, boundary: str) -> None:
    part = structure.parse(f"Content-Type: multipart/mixed; x=y; boundary={stated}; z=1\n\n".encode())
    assert part.parameter("boundary") == boundary


# --- limits ------------------------------------------------------------------------------------------------

FENCED = b"From: MAILER-DAEMON@x.example\nContent-Type: multipart/mixed; boundary=b\n\n"
RETURNED = (
    b"Message-ID: <t1@sender.example>\nTo: bob@y.example\nContent-Type: multipart/mixed; boundary=c\n\n"
    + (b"--c\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + b"QUJD" * 2500 + b"\n")
    * 5000
    + b"--c--\n"
)
TOLD = b"Your message was not delivered to\n\n<bob@y.example>: 550 5.1.1 User unknown\n\n"
STATUS = b"Reporting-MTA: dns; x.example\n\nFinal-Recipient: rfc822; bob@y.example\nAction: failed\nStatus: 5.1.1\n\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\n"
        + TOLD
        + b"--b\nContent-Type: message/delivery-status\n\n"
        + STATUS
        + b"--b\nContent-Type: message/rfc822\n\n",
        b"\n" + TOLD + b"--- Below this line is a copy of the message.\n\n",
    ],
    ids=["as a part", "below the words"],
)
def test_a_report_that_gives_back_a_message_of_50_mb_is_read_from_its_head(head: bytes) -> None:
    report = read(
        b"Return-Path: <>\nFrom: MAILER-DAEMON@x.example\nSubject: Undelivered Mail\n" + head + RETURNED
    )
    assert [(one.final_recipient, str(one.status)) for one in report.recipients] == [
        ("bob@y.example", "5.1.1")
    ]
    assert report.returned_message_ids == ("t1@sender.example",)


def test_nothing_behind_the_size_limit_is_read() -> None:
    for length, is_read in ((structure.SIZE_LIMIT - 50, True), (structure.SIZE_LIMIT, False)):
        mail = Mail(
            b"From: a@x.example\n\n" + b"." * (length - len(b"From: a@x.example\n\n")) + b"here it stands"
        )
        assert mail.mentions(b"here it stands") is is_read
        assert mail.part.body.endswith(b"here it stands") is is_read


@pytest.mark.parametrize(
    "mail",
    [
        pytest.param(FENCED + b"--b\n\nHello\n" * 5000, id="parts"),
        pytest.param(FENCED + (b"--b\n\n" + b"Hello\n" * 10_000) * 500, id="texts"),
        pytest.param(
            FENCED + (b"--b\nContent-Type: text/html\n\n" + b"<p>Hello\n" * 10_000) * 500, id="pages"
        ),
        pytest.param(b"From: a@x.example\n\n" + b"Hello\n" * 500_000, id="one text"),
        pytest.param(FENCED.replace(b"=b", b"=b0") + b"--b0\n" + FENCED * 3, id="a few"),
    ],
)
def test_parts_and_texts_are_no_more_than_their_limits(mail: bytes) -> None:
    read_mail = Mail(mail)
    texts = [leaf.text for leaf in read_mail.leaves]
    assert len(texts) <= structure.PART_LIMIT
    assert sum(map(len, texts)) <= structure.TEXTS_LIMIT
    assert max(map(len, texts)) <= structure.TEXT_LIMIT
    assert len(read_mail.words) <= mail_module.WORDS_LIMIT


def test_words_are_read_no_further_than_they_count() -> None:
    mail = Mail(FENCED + (b"--b\n\n" + b"Hello\n" * 10_000) * 500)
    assert len(mail.words) == mail_module.WORDS_LIMIT
    assert sum("text" in vars(leaf) for leaf in mail.leaves) == 2, "the rest waits until it is asked for"


def test_every_line_of_a_mail_over_the_limit_is_accounted_for() -> None:
    mail = b"From: a@x.example\r\n\r\n" + b"This line says nothing, as most do.\r\n" * 300_000
    assert len(mail) > structure.SIZE_LIMIT
    last = layout.lay_out(mail)[-1]
    assert (last.zone, last.last) == (layout.Zone.NOTE, 300_002)


def test_the_limits_are_told_as_they_are() -> None:
    text = (Path(__file__).parent.parent / "docs" / "OPERATING.md").read_text("utf-8")
    for row in (
        f"a mail | {structure.SIZE_LIMIT >> 20} MiB",
        f"a header | {structure.HEADER_LIMIT >> 10} KiB",
        f"parts | {structure.PART_LIMIT:,}, {structure.NESTING_LIMIT} deep in each other",
        f"texts | {structure.TEXT_LIMIT >> 10} KiB of one, {structure.TEXTS_LIMIT >> 20} MiB of all",
        f"what a report says in its own words | {mail_module.WORDS_LIMIT >> 10} Ki characters",
        f"a line of it that may name a recipient | {naming.LINE_LIMIT:,} characters",
        f"a field of a delivery status | {dsn.FIELD_LIMIT >> 10} Ki characters",
        f"recipients of one report | {dsn.RECIPIENTS_LIMIT:,}",
        f"time and memory | {bounds.SECONDS:g} s, {bounds.MEMORY_OCTETS >> 30} GiB",
    ):
        assert f"| {row} |" in text, row

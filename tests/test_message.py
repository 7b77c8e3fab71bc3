"""What leaves the house: read back by the standard library, and looked at octet by octet."""

from __future__ import annotations

import email
import email.header
import email.policy
import email.utils
import quopri
import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailbound import message
from mailbound.message import Enclosures, Mailbox, MessageFault, Sender, headers, parts, quoted_printable
from mailbound.message.text import Text
from mailbound.template import Template
from mailbound.template.sheet import Part, Sheet

DATE = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
TOKEN = "abcdefghijklmnopqrstuvwxyz234567abcdefgh"
MAILTO = f"mailto:bounces+{TOKEN}@example.com?subject=unsubscribe"
HTTPS = f"https://news.example.com/u/{TOKEN}"
STORE = {
    "name": "Example News",
    "own": "news@example.com",
    "inbound": "bounces@example.com",
    "outbound": "hello@example.com",
    "list_id": "news.example.com",
}
ZOE = Mailbox("zoe@example.com", "Zoë")
NOTHING = Enclosures()
FIELDS = [
    "Date",
    "From",
    "Sender",
    "Reply-To",
    "List-Id",
    "To",
    "Subject",
    "Message-ID",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Auto-Submitted",
    "Precedence",
    "X-Auto-Response-Suppress",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
]


def composed(  # every argument has a default, so that a test names only what it is about
    *,
    to=ZOE,
    subject="Spring",
    text="Hello\n",
    html=None,
    enclosures=NOTHING,
    https=HTTPS,
    mailto=MAILTO,
    message_id=f"{TOKEN}@example.com",
    **store,
):
    sheet = Sheet([0], [subject], whole(text), None if html is None else whole(html))
    [octets] = message.compose(
        Sender.of_store(**STORE | store),
        [to],
        sheet,
        enclosures,
        message_ids=message.message_id(message_id).fill([""]),
        date=DATE,
        unsubscribes=message.unsubscribe(mailto, https).fill([""]),
    )
    return octets


def whole(text):
    """Return a part in which a template says nothing of its own."""
    return Part(("", ""), [[text]])


def parsed(octets):
    return email.message_from_bytes(octets, policy=email.policy.default)


def assert_is_proper(octets):
    """Assert what holds for every message: 7-bit, CRLF only, lines within the limits."""
    assert octets.isascii()
    assert b"\0" not in octets
    assert re.search(rb"(?<!\r)\n|\r(?!\n)", octets) is None
    header, _, body = octets.partition(b"\r\n\r\n")
    assert max(map(len, header.split(b"\r\n"))) <= 998
    assert max(map(len, body.split(b"\r\n"))) <= 76
    assert octets.endswith(b"\r\n")


# Characters that a header may hold; the others have a test of their own.
sayable = st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])
values = st.text(sayable, max_size=120)
VECTORS = [
    "=?utf-8?q?a=0D=0ABcc:_evil@x?=",
    "=?utf-8?b?DQpCY2M6IGV2aWxAeA==?=",
    "a =?utf-8?q?=0A?= b",
    "x" * 900,
    '"; Bcc: evil@x',
    "a, b <evil@x>",
    "(comment) \\ \" '",
    "Zoë " * 60,
    "\U0001f600" * 80,
    " leading, double  and trailing ",
    "",
]


def with_vectors(test):
    for vector in VECTORS:
        test = example(vector)(test)
    return test


# --- headers ----------------------------------------------------------------------------------------------


def test_the_fields_are_exactly_these_and_once_each():
    assert parsed(composed()).keys() == FIELDS


def test_the_fields_say_what_they_should():
    found = parsed(composed())
    assert found["Date"] == "Tue, 01 Dec 2026 08:00:00 +0000"
    assert found["From"] == "Example News <news@example.com>"
    assert found["Sender"] == "bounces@example.com"
    assert found["Reply-To"] == "hello@example.com"
    assert found["To"].addresses[0].addr_spec == "zoe@example.com"
    assert found["Message-ID"] == f"<{TOKEN}@example.com>"
    assert found["List-Id"] == "Example News <news.example.com>"
    assert found["List-Unsubscribe"] == f"<{HTTPS}>, <{MAILTO}>"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Precedence"] == "bulk"
    assert found["X-Auto-Response-Suppress"] == "OOF, AutoReply"


@pytest.mark.parametrize("own", [None, "bounces@example.com"])
def test_without_a_from_of_its_own_the_store_sends_as_its_inbound_account(own):
    found = parsed(composed(own=own))
    assert found["From"] == "Example News <bounces@example.com>"
    assert "Sender" not in found
    assert found["Reply-To"] == "hello@example.com"


def test_without_https_there_is_no_one_click():
    found = parsed(composed(https=None))
    assert found["List-Unsubscribe"] == f"<{MAILTO}>"
    assert "List-Unsubscribe-Post" not in found


def test_a_feedback_id_stays_as_it_is():
    sender = Sender(
        Mailbox("a@example.com"), None, None, "news.example.com", feedback_id="1:spring:main:mailbound" * 5
    )
    [octets] = message.compose(
        sender,
        [Mailbox("b@example.com")],
        Sheet([0], ["s"], whole("t"), None),
        Enclosures(),
        message_ids=message.message_id("1@example.com").fill([""]),
        date=DATE,
        unsubscribes=message.unsubscribe(MAILTO).fill([""]),
    )
    assert parsed(octets)["Feedback-ID"] == "1:spring:main:mailbound" * 5
    assert b"=?" not in octets


def test_a_long_uri_is_neither_encoded_nor_cut():
    url = "https://example.com/" + "x" * 800
    octets = composed(https=url)
    assert f"\r\nList-Unsubscribe: <{url}>,\r\n <{MAILTO}>\r\n".encode() in octets


@with_vectors
@given(values)
def test_a_subject_survives_and_injects_nothing(value):
    octets = composed(subject=value)
    found = parsed(octets)
    assert_is_proper(octets)
    assert found.keys() == FIELDS
    assert found["Subject"] == value
    assert not found["Subject"].defects


@with_vectors
@given(values)
def test_a_name_survives_and_injects_nothing(value):
    octets = composed(to=Mailbox("zoe@example.com", value), name=value)
    found = parsed(octets)
    assert_is_proper(octets)
    assert found.keys() == FIELDS
    shown = " ".join(filter(None, value.split(" ")))
    assert shown_in(octets, "To") == (shown, "zoe@example.com")
    assert shown_in(octets, "From") == (shown, "news@example.com")


def shown_in(octets, field):
    """Return the name and address in `field`, decoded in two steps: `policy.default` leaves a space between
    encoded words in a name, against RFC 2047 §6.2."""
    raw = email.message_from_bytes(octets, policy=email.policy.compat32)[field]
    [(name, address)] = email.utils.getaddresses([re.sub(r"\r\n(?=[ \t])", "", raw)])
    return str(email.header.make_header(email.header.decode_header(name))), address


@given(values, values)
def test_no_encoded_word_is_longer_than_allowed_or_in_a_structured_place(subject, name):
    header = composed(subject=subject, to=Mailbox("zoe@example.com", name)).partition(b"\r\n\r\n")[0]
    assert all(len(word) <= 75 for word in re.findall(rb"=\?utf-8\?\S*", header))
    for line in re.findall(rb"(?m)^(?:List-Unsubscribe|Message-ID|Date|Sender|Reply-To).*", header):
        assert b"=?" not in line
    for line in header.split(b"\r\n"):
        assert len(line) <= 78 or b" " not in line.strip() or line.count(b" ") <= 1


@pytest.mark.parametrize(
    "character", ["\0", "\t", "\n", "\r", "\r\n", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"]
)
@pytest.mark.parametrize(
    "place", ["name", "subject", "list name", "https", "mailto", "message id", "address"]
)
def test_what_could_end_a_line_is_refused_everywhere(place, character):
    value = f"a{character}Bcc: evil@x"
    with pytest.raises(MessageFault):
        composed(
            **{
                "name": {"to": Mailbox("zoe@example.com", value)},
                "subject": {"subject": value},
                "list name": {"name": value},
                "https": {"https": f"https://example.com/{value}"},
                "mailto": {"mailto": f"mailto:{value}"},
                "message id": {"message_id": f"{value}@example.com"},
                "address": {"to": Mailbox(f"{value}@example.com")},
            }[place]
        )


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "a@",
        "@b",
        "a b@example.com",
        "a@b,c@d",
        "<a@b>",
        "a@b>",
        "a@[1.2.3.4]",
        "a@b c",
        '"a@b',
        "a@b\n",
        "A <a@b>",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(MessageFault, match="cannot be written as an address"):
        composed(to=Mailbox(address))


@pytest.mark.parametrize(
    "address",
    ["a@b.example", "a.b+c@d-e.example", '"a b"@c.example', '"a\\"b"@c.example', "o'neil@c.example"],
)
def test_an_address_is_sent_as_it_is(address):
    octets = composed(to=Mailbox(address, "Ann, of <Green> Gables"))
    [mailbox] = parsed(octets)["To"].addresses
    assert mailbox.addr_spec == address
    assert mailbox.display_name == "Ann, of <Green> Gables"


def test_an_internationalised_address_is_written_in_utf8():
    header = composed(to=Mailbox("zoë@xn--mller-kva.de")).partition(b"\r\n\r\n")[0]
    assert "\r\nTo: zoë@xn--mller-kva.de\r\n".encode() in header


@pytest.mark.parametrize(
    "uri",
    ["http://example.com/u", "javascript:alert(1)", "https://a b", "https://a>,<b", "https://" + "a" * 900],
)
def test_only_a_proper_uri_may_unsubscribe(uri):
    with pytest.raises(MessageFault, match="is no https or mailto URI"):
        composed(https=uri)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("A", "1\r\nBcc: 2", id="one more"),
        pytest.param("A", "1\nBcc: 2", id="a bare LF"),
        pytest.param("A", "1\rBcc: 2", id="a bare CR"),
        pytest.param("A", "1\r\n\r\nBcc: 2", id="an early end"),
        pytest.param("A", "1\0", id="NUL"),
        pytest.param("A ", "1", id="a space in the name"),
        pytest.param("A", "x" * 999, id="too long"),
        pytest.param("A", "x" * 100 + "\r\nBcc: 2", id="one more, folded"),
    ],
)
def test_a_header_field_that_came_out_wrong_is_not_sent(name, value):
    with pytest.raises(MessageFault, match="came out"):
        headers.field(name, value)


def test_a_mould_holds_its_token_wherever_its_place_is():
    place = message.PLACE
    mould = message.unsubscribe(f"mailto:b+{place}@example.com", f"https://example.com/{place}")
    assert mould.fill([TOKEN]) == message.unsubscribe(
        f"mailto:b+{TOKEN}@example.com", f"https://example.com/{TOKEN}"
    ).fill([""])


def test_a_long_list_name_is_folded():
    octets = composed(name="The Very Long Name of a Newsletter " * 6 + "End")
    assert_is_proper(octets)
    assert parsed(octets)["List-Id"].endswith("<news.example.com>")
    assert max(map(len, octets.partition(b"\r\n\r\n")[0].split(b"\r\n"))) <= 94  # of List-Unsubscribe


# --- bodies -----------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
FILES = {
    "subject.txt": b"s",
    "text.txt": b"t",
    "html.html": b'<img src="cid:logo.png">',
    "inline/logo.png": PNG,
    "attachments/Preisliste \xc3\xa4\xc3\xb6\xc3\xbc.pdf".encode("latin-1").decode(): b"%PDF",
}


def structure(part):
    """Return the types of a message as nested lists."""
    if not part.is_multipart():
        return part.get_content_type()
    return [part.get_content_type(), *(structure(inner) for inner in part.iter_parts())]


@pytest.mark.parametrize(
    ("html", "inline", "attachments", "expected"),
    [
        (None, False, False, "text/plain"),
        ("<p>", False, False, ["multipart/alternative", "text/plain", "text/html"]),
        (
            "<p>",
            True,
            False,
            ["multipart/alternative", "text/plain", ["multipart/related", "text/html", "image/png"]],
        ),
        (None, False, True, ["multipart/mixed", "text/plain", "application/pdf"]),
        (
            "<p>",
            True,
            True,
            [
                "multipart/mixed",
                ["multipart/alternative", "text/plain", ["multipart/related", "text/html", "image/png"]],
                "application/pdf",
            ],
        ),
    ],
)
def test_the_parts_are_nested_as_readers_expect(html, inline, attachments, expected):
    image = (parts.file("logo.png", PNG, "logo@inline.invalid"),) if inline else ()
    paper = (parts.file("list.pdf", b"%PDF", None),) if attachments else ()
    octets = composed(html=html, enclosures=Enclosures(inline=image, attachments=paper))
    assert_is_proper(octets)
    found = parsed(octets)
    assert structure(found) == expected
    assert [defect for part in found.walk() for defect in part.defects] == []


def test_a_template_brings_its_files_along():
    template = Template("t", FILES)
    rendered = template.render({})
    octets = composed(html=rendered.html, enclosures=message.enclose(template))
    found = parsed(octets)
    [image] = [part for part in found.walk() if part.get_content_type() == "image/png"]
    assert image.get_content() == PNG
    assert image["Content-ID"] == f"<{rendered.html.split('cid:')[1].split(chr(34))[0]}>"
    assert image.get_content_disposition() == "inline"
    [paper] = found.iter_attachments()
    assert paper.get_filename() == "Preisliste äöü.pdf"
    assert paper.get_content() == b"%PDF"


bodies = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=400)


@example("")
@example(".")
@example("..\n.\n\n.")
@example("From here\n>From there\n--=_alternative--\n")
@example("trailing space \nand tab\t\n")
@example("x" * 5000)
@example("ä" * 500 + "\n")
@example("a\0b\x0c\x1b\x85\u2028")
@given(bodies)
def test_a_body_survives(value):
    octets = composed(text=value, html=value)
    assert_is_proper(octets)
    plain, html = (part.get_payload(decode=True).decode() for part in parsed(octets).iter_parts())
    expected = value if value.endswith("\n") else value + "\n"
    assert plain.replace("\r\n", "\n") == expected
    assert html.replace("\r\n", "\n") == expected


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_sort_of_line_break_becomes_the_proper_one(ending):
    octets = composed(text=f"one{ending}two{ending}")
    assert octets.endswith(b"\r\n\r\none\r\ntwo\r\n")


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(MessageFault, match="surrogate"):
        composed(text="\ud83d")


@example('a"b;c.pdf')
@example("two\nlines.pdf")
@example("\u202egpj.exe")
@example("x" * 300 + ".pdf")
@example("ä" * 120)
@example("a%20b*'c.pdf")
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_the_name_of_an_attachment_survives(name):
    octets = parts.file(name, b"x", None)
    assert octets.isascii()
    assert max(map(len, octets.split(b"\r\n"))) <= 78
    found = parsed(octets)
    assert sorted(found.keys()) == ["Content-Disposition", "Content-Transfer-Encoding", "Content-Type"]
    raw = email.message_from_bytes(octets, policy=email.policy.compat32)
    assert email.utils.collapse_rfc2231_value(raw.get_param("filename", header="content-disposition")) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.pdf", "application/pdf"),
        ("a.png", "image/png"),
        ("a.eml", "application/octet-stream"),
        ("a.txt", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_an_attachment_has_a_type_that_base64_is_allowed_for(name, expected):
    assert parsed(parts.file(name, b"x", None)).get_content_type() == expected


@given(st.lists(st.text(st.sampled_from("ab =.\t\n\rüxxx"), max_size=90), max_size=6))
@example(["a ", ".b", "c\t"])
@example(["x" * 75 + " "])
@example(["x" * 75 + "="])
def test_texts_encoded_together_are_those_encoded_one_by_one(texts: list[str]) -> None:
    together = quoted_printable.lines(texts)
    if together is None:
        assert any(re.search(r"[\r\n]|^\.|.{25}", text) for text in texts) or not texts
    else:
        assert together == [quoted_printable.line(text) for text in texts]


PIECE = st.text(alphabet=st.sampled_from("ab =.\t\n\r\x0cé€xxxxx"), max_size=200)
PLAIN = st.text(alphabet=st.sampled_from("abc. "), min_size=1, max_size=76)
LINES = st.text(alphabet=st.sampled_from("abc. \n"), min_size=1, max_size=120)


@given(st.lists(st.tuples(PLAIN, st.just(False)) | st.tuples(LINES, st.just(True)), max_size=7))
def test_a_simple_text_encoded_in_pieces_is_the_text_encoded_as_a_whole(
    pieces: list[tuple[str, bool]],
) -> None:
    assert_encodes(pieces)


@given(st.lists(st.tuples(PIECE, st.booleans()), max_size=5))
@example([("a\0b", True), ("c", False)])
@example([("a\0b\n", False), ("c", True)])
@example([("a" * 70, False), ("b", True), ("c" * 5, False)])  # it fills its line
@example([("x" * 75 + ".x\n", True)])  # a line that is broken before a dot
@example([("x\r", False), ("\nx", True)])
@example([("x\n", True), ("", False)])
@example([("=" * 24 + "  ", False)])  # a line that its last space makes too long
@example([("\n\r", True), ("\n", False)])
@example([("\r=====", False), ("=" * 20, False)])
@example([("\n" + "x" * 30, True)])  # it ends within a line that was broken
@example([("\n" + "x" * 75 + ".", True), ("\n", False)])
@example([("\n" + "x" * 75 + "=", True), ("x", False), ("y" * 40 + "\nz", True)])
def test_a_text_encoded_in_pieces_is_the_text_encoded_as_a_whole(pieces: list[tuple[str, bool]]) -> None:
    assert_encodes(pieces)


def assert_encodes(pieces: list[tuple[str, bool]]) -> None:
    """Assert that a part of texts of a template (True) and values holds all of them, in proper lines."""
    texts, values = [""], []
    for piece, is_text in pieces:
        if is_text:
            texts[-1] += piece
        else:
            values.append(piece)
            texts.append("")
    others = [value[::-1] for value in values]
    both = Part(tuple(texts), list(zip(values, others, strict=True)))
    for number, octets in enumerate(Text("plain").encode(both, 2)):
        assert_says(octets, both.whole(number))


def assert_says(octets: bytes, content: str) -> None:
    encoded = octets.partition(b"\r\n\r\n")[2]
    said = content.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n").encode()
    said = said if said.endswith(b"\r\n") else said + b"\r\n"
    assert quopri.decodestring(encoded) == said
    lines = encoded.split(b"\r\n")
    assert all(len(line) <= 76 and not line.startswith(b".") for line in lines)
    assert not any(line.endswith((b" ", b"\t")) for line in lines)

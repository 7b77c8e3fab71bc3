"""What goes out: the commands, their parameters, and the body."""

import asyncio
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import scripted_relay
from mailbound import relay
from mailbound.model import Letter, Phase, Result
from mailbound.relay import body, commands, replies

ALL = ("PIPELINING", "SIZE 100000", "DSN", "8BITMIME", "SMTPUTF8")


def letter(content=b"Subject: x\r\n\r\nhello\r\n", **values):
    given = {"return_path": "bounces@shop.example", "recipient": "ann@example.net", "envid": "abc-1"} | values
    return Letter(delivery_id=1, attempt=1, content=content, **given)


def send(item, *keywords, asked=True):
    """Return the outcome, MAIL and RCPT as seen by a relay that offers `keywords`, and the body.

    Without `asked` the relay must hear nothing at all.
    """

    async def yes():
        return True

    async def main():
        commands_ = ["C: MAIL", "C: RCPT", "C: DATA"]
        answers = ["S: 250 ok", "S: 250 ok", "S: 354 go"]
        grouped = "PIPELINING" in keywords
        steps = (
            commands_ + answers
            if grouped
            else [x for pair in zip(commands_, answers, strict=True) for x in pair]
        )
        text = scripted_relay.hello(*keywords)
        if asked:
            text += "\n".join([*steps, "BODY", "S: 250 ok"])
        async with scripted_relay.serve(text) as server:
            account = relay.Account(
                host="127.0.0.1", port=server.port, tls="insecure", ehlo_name="me.example"
            )
            session = await relay.open(account)
            outcome = await session.transact(item, yes)
            usable = session.usable
            session.close()
        assert server.rest == b""
        return outcome, [line for line in server.lines if line[:4] in ("MAIL", "RCPT")], server.bodies, usable

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("keywords", "mail", "rcpt"),
    [
        pytest.param(
            (), "MAIL FROM:<bounces@shop.example>", "RCPT TO:<ann@example.net>", id="nothing offered"
        ),
        pytest.param(
            ("SIZE",), "MAIL FROM:<bounces@shop.example> SIZE=21", "RCPT TO:<ann@example.net>", id="size"
        ),
        pytest.param(
            ("DSN",),
            "MAIL FROM:<bounces@shop.example> RET=HDRS ENVID=abc-1",
            "RCPT TO:<ann@example.net> NOTIFY=FAILURE,DELAY ORCPT=rfc822;ann@example.net",
            id="dsn",
        ),
        pytest.param(
            ALL,
            "MAIL FROM:<bounces@shop.example> SIZE=21 RET=HDRS ENVID=abc-1",
            "RCPT TO:<ann@example.net> NOTIFY=FAILURE,DELAY ORCPT=rfc822;ann@example.net",
            id="all",
        ),
    ],
)
def test_only_what_is_offered_is_used(keywords, mail, rcpt):
    outcome, lines, _, _ = send(letter(), *keywords)
    assert outcome.result is Result.ACCEPTED
    assert lines == [mail, rcpt]


def test_eight_bit_content_is_declared():
    _, lines, bodies, _ = send(letter("Subject: x\r\n\r\ngrüße\r\n".encode()), "8BITMIME")
    assert lines[0] == "MAIL FROM:<bounces@shop.example> BODY=8BITMIME"
    assert "grüße".encode() in bodies[0]


def test_a_utf8_address_is_declared_and_its_original_recipient_has_the_type_utf8():
    _, lines, _, _ = send(letter(recipient="jürgen@bücher.example"), *ALL)
    assert lines == [
        "MAIL FROM:<bounces@shop.example> SIZE=21 SMTPUTF8 RET=HDRS ENVID=abc-1",
        "RCPT TO:<jürgen@bücher.example> NOTIFY=FAILURE,DELAY ORCPT=utf-8;j\\x{FC}rgen@b\\x{FC}cher.example",
    ]


def test_a_utf8_header_is_declared_for_ascii_addresses_too():
    _, lines, _, _ = send(letter("Subject: ü\r\n\r\n\r\n".encode(), utf8=True), *ALL)
    assert "SMTPUTF8" in lines[0].split()


def test_the_size_counts_octets_with_crlf_and_without_stuffed_dots():
    _, lines, bodies, _ = send(letter(b"A: b\r\n\r\n.\r\n..\r\n"), "SIZE 15")
    assert lines[0].endswith(" SIZE=15")
    assert bodies == [b"A: b\r\n\r\n..\r\n...\r\n.\r\n"]


OBJECTIONS = [
    pytest.param({"content": b"x" * 999 + b"\r\n"}, ("SIZE 1000",), "552 5.3.4", id="size"),
    pytest.param({"content": "ü\r\n".encode()}, (), "554 5.6.3", id="eight bit"),
    pytest.param({"recipient": "jürgen@example.net"}, ("8BITMIME",), "550 5.6.7", id="utf8 local part"),
    pytest.param({"utf8": True}, ("8BITMIME",), "550 5.6.7", id="utf8 header"),
    pytest.param({"recipient": "x" * 65 + "@example.net"}, ALL, "553 5.1.3", id="long local part"),
]


@pytest.mark.parametrize(("values", "keywords", "reply"), OBJECTIONS)
def test_what_must_fail_is_refused_here_and_the_session_goes_on(values, keywords, reply):
    outcome, lines, _, usable = send(letter(**values), *keywords, asked=False)
    assert (outcome.result, outcome.phase, outcome.why) == (Result.REFUSED, Phase.MAIL, commands.HERE)
    assert str(outcome.reply).startswith(reply)
    assert lines == []
    assert usable


@pytest.mark.parametrize("limit", ["", "0", "x", "-1", "9" * 5000, "²"])
def test_a_size_without_a_sensible_limit_limits_nothing(limit):
    assert commands.Extensions.read({"size": limit}).size_limit == 0
    assert commands.Extensions.read({"size": limit}).size


@pytest.mark.parametrize(
    "values",
    [
        {"return_path": ""},
        {"return_path": "a@b>\r\nRSET"},
        {"envid": "x" * 101},
        {"envid": "+" * 34},
        {"envid": "a\nb"},
    ],
    ids=str,
)
def test_a_fault_of_ours_blames_no_recipient(values):
    outcome, lines, _, _ = send(letter(**values), *ALL, asked=False)
    assert outcome.result is Result.UNTRIED
    assert outcome.reply is not None
    assert lines == []


SAFE = [
    "ann@example.net",
    "a.b+c=d@example.net",
    "a..b.@docomo.example",
    "o'neil@sub.example.co.uk",
    '"two words"@example.net',
    '"a>b"@example.net',
    '"a\\"b"@example.net',
    "jürgen@bücher.example",
    "x@[127.0.0.1]",
    "x@[IPv6:::1]",
    "x" * 64 + "@example.net",
    "x_y@under_score.example",
]
UNSAFE = [
    "",
    "ann",
    "@example.net",
    "ann@",
    "b@x> NOTIFY=NEVER",
    "b@x, c@y",
    "b@x,c@y",
    "b@x\r\nRSET",
    "b@x\n",
    "@r:u@h",
    "a b@x",
    "a@b c",
    "<a@b>",
    "a@b@c",
    '"a"b@x',
    '"a\r\n"@x',
    '"a@x',
    '"a\\"@x',
    "a\x00@x",
    "a\x7f@x",
    "a\x85@x",
    "a\u2028b@x",
    "a\xa0b@x",
    "a@x\u2029",
    "a\ud800@x",
    "x" * 65 + "@x",
    "ü" * 33 + "@x",
    "a@" + "x" * 256,
    "x" * 64 + "@" + "y" * 190,
]


@pytest.mark.parametrize("address", SAFE)
def test_an_address_that_keeps_its_place_is_safe(address):
    assert commands.is_safe(address)


@pytest.mark.parametrize("address", UNSAFE)
def test_an_address_that_leaves_its_place_is_not(address):
    assert not commands.is_safe(address)


@given(st.text(max_size=40), st.text(max_size=20))
@example('"', "x")
def test_no_safe_address_can_end_its_brackets(local_part, domain):
    address = f"{local_part}@{domain}"
    if commands.is_safe(address):
        unquoted = re.sub(r'"(?:[^"\\]|\\.)*"', "", address)
        assert not re.search(r"[\x00-\x20<>\x7f]", unquoted)
        assert not {unicodedata.category(character) for character in address} & {"Cc", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("plain", "encoded"),
    [("a+b=c@x", "a+2Bb+3Dc@x"), ("a b", "a+20b"), ("ü", "+C3+BC"), ("!~\\", "!~\\"), ("", "")],
)
def test_xtext(plain, encoded):
    assert commands.xtext(plain) == encoded


@given(st.text())
def test_xtext_can_be_read_back(plain):
    encoded = (
        commands.xtext(plain)
        if plain.isascii()
        else commands.xtext(plain.encode("utf-8", "replace").decode())
    )
    assert re.fullmatch(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*", encoded)
    decoded = re.sub(rb"\+(..)", lambda match: bytes.fromhex(match[1].decode()), encoded.encode())
    assert decoded == plain.encode("utf-8", "replace")


# The body

CONTENT = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"x", b"\r\n.\r\n", b"\n.\n", b"\xff"])
).map(b"".join)
LONE = re.compile(rb"(?<!\r)\n|\r(?!\n)")


def unstuffed(wire):
    """Read a body as a relay does (RFC 5321 §4.5.2); what follows the final dot is returned too."""
    lines = wire.split(b"\r\n")
    end = lines.index(b".")
    kept = [line.removeprefix(b".") for line in lines[:end]]
    return b"".join(line + b"\r\n" for line in kept), b"\r\n".join(lines[end + 1 :])


@given(CONTENT)
@example(b".")
@example(b"")
@example(b"\n.\n")
def test_a_stuffed_body_is_read_back_as_it_was_and_ends_where_it_ends(content):
    content = body.with_crlf(content)
    assert unstuffed(body.stuffed(content) + body.TERMINATOR) == (content, b"")


@given(CONTENT)
@example(b"a\n.\r\nb")
@example(b"a\r.\r\nb")
@example(b"a\r\n.\nb")
@example(b"\r\r\n")
@example(b"\n\r")
def test_no_line_ends_with_anything_but_crlf(content):
    wire = body.stuffed(body.with_crlf(content)) + body.TERMINATOR
    assert not LONE.search(wire)
    assert wire.endswith(b"\r\n.\r\n")


@given(
    st.lists(st.binary(max_size=5).filter(lambda line: b"\r" not in line and b"\n" not in line), min_size=1)
)
def test_content_that_is_right_stays_as_it_is(lines):
    content = b"".join(line + b"\r\n" for line in lines)
    assert body.with_crlf(content) is content


# The replies

REPLY = st.tuples(
    st.integers(200, 599), st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"])), min_size=1)
)


@given(st.lists(REPLY, max_size=5), st.data())
def test_replies_are_the_same_however_they_are_cut(expected, data):
    wire = b""
    for code, lines in expected:
        for line in lines[:-1]:
            wire += f"{code}-{line}\r\n".encode()
        wire += f"{code} {lines[-1]}\r\n".encode()
    reader = replies.ReplyReader()
    got = []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        got += reader.feed(wire[:cut])
        wire = wire[cut:]
    assert [(reply.code, reply.text.split("\n")) for reply in got] == expected
    assert not reader.partial


def test_the_limit_of_a_reply_is_not_one_of_a_session():
    reader = replies.ReplyReader()
    for _ in range(2 * replies.REPLY_LIMIT // 100):
        assert len(list(reader.feed(b"250 " + b"x" * 100 + b"\r\n"))) == 1


@given(st.binary())
def test_no_bytes_make_the_reader_fail_in_another_way(data):
    reader = replies.ReplyReader()
    try:
        got = list(reader.feed(data))
    except replies.Nonsense:
        pass
    else:
        assert all(line.isprintable() for reply in got for line in reply.text.split("\n"))

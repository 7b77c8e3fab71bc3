"""Changes that a mail may go through: half of them know what a mail is made of."""

from __future__ import annotations

import base64
import quopri
import random
import re
from collections.abc import Callable, Sequence

SIZE_LIMIT = 32 * 1024  # octets of a mail that is tried

LINES = [
    line.encode()
    for line in (
        "Return-Path: <>",
        "From: MAILER-DAEMON <>",
        "From: MAILER-DAEMON@mta.example (Mail Delivery System)",
        "To: bounces+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sender.example",
        "Subject: Undelivered Mail Returned to Sender",
        "Subject: =?unicode-escape?q?=5Cud800=FC?=",
        "Subject: =?utf-7?b?KzJBQS38?=",
        "Subject: unsubscribe",
        "Auto-Submitted: auto-replied",
        "X-Failed-Recipients: ann@x.example, bob@x.example",
        "List-Id: <list.x.example>",
        "Message-ID: <a1@sender.example>",
        "MIME-Version: 1.0",
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"',
        'Content-Type: multipart/digest; boundary="b"',
        "Content-Type: message/delivery-status",
        "Content-Type: message/global-delivery-status; charset=utf-8",
        "Content-Type: message/feedback-report",
        "Content-Type: message/disposition-notification",
        "Content-Type: message/rfc822",
        "Content-Type: text/rfc822-headers",
        "Content-Type: text/html; charset=utf-16",
        'Content-Type: text/plain; charset="idna"',
        "Content-Type: text/plain; charset=unicode-escape",
        "Content-Type: text/plain; charset=utf-7",
        "Content-Type: text/plain; charset=iso-2022-jp",
        "Content-Type: text/plain; charset=gb18030",
        "Content-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "--b",
        "--b--",
        "Reporting-MTA: dns; mta.example",
        "Original-Envelope-Id: e1",
        "Final-Recipient: rfc822; bob@x.example",
        "Final-Recipient: utf-8; b\\x{F6}b@x.example",
        "Final-Recipient: rfc822; bob+40x.example+00",
        'Original-Recipient: rfc822; "a b"@x.example',
        "X-Actual-Recipient: rfc822; bob@x.example",
        "Action: failed",
        "Action: delayed",
        "Status: 5.1.1",
        "Status: 4.4.7",
        "Diagnostic-Code: smtp; 550 5.1.1 no",
        "Diagnostic-Code: x-unix; \\x{0}",
        "Feedback-Type: abuse",
        "Original-Rcpt-To: ann@x.example",
        "<eve@x.example>: was not delivered",
        "Your message could not be delivered to the following recipients:",
        "550 5.1.1 <dan@x.example>... User unknown",
        ">>> RCPT To:<dan@x.example>",
        "   dan (no such user here)",
        "smtp;550 5.1.1",
        "--- Below this line is a copy of the message.",
        "> Received: from a by b for <ann@x.example>; Mon, 2 Mar 2026 09:15:01 +0000",
        "From nobody Mon Mar  2 09:15:01 2026",
        '{"notificationType":"Bounce","mail":{},"bounce":{"bouncedRecipients":[{"emailAddress":"a\\ud800@x.example"}]}}',
        "<style>",
        "<br><b>ann</b>@x.example&nbsp;&#64;&#0;",
    )
]
PIECES = [
    *(b"\0", b"\n", b"\r", b"\r\n", b"\n\n", b"\t", b"\xff", b"\xe2\x80\xa8", b"\xc2\x85", b"\xa0", b"\x1b"),
    *(
        b"@",
        b"<",
        b">",
        b"(",
        b")",
        b'"',
        b"\\",
        b";",
        b":",
        b",",
        b"=",
        b"=?",
        b"?=",
        b"+40",
        b"+00",
        b"&#64;",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b"--",
        b"!",
        b"*",
        b"| ",
        b"> ",
        b"\\x{110000}",
        b"\\ud800",
        b"=0A",
        b"=00",
        b"=\n",
    ),
    *("ß", "İ", "ﬁ", "\u017f", "。", "\uff1a", "ö@x.example"),
]
WORD = re.compile(rb"[\w.+-]+@[\w.-]+|[\w-]+|\W")


def mutated(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Return `raw` after a few changes of the kinds that mail comes with."""
    for _ in range(chance.choice((1, 1, 2, 3, 5, 8))):
        raw = chance.choice(MUTATIONS)(raw, chance, others)[:SIZE_LIMIT]
    return raw


def _lines_change(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    lines = raw.split(b"\n")
    at, upto = sorted(chance.randrange(len(lines) + 1) for _ in range(2))
    upto = min(upto, at + chance.choice((1, 1, 2, 10, 1000)))
    chosen = lines[at:upto]
    match chance.randrange(5):
        case 0:
            lines[at:upto] = []
        case 1:
            lines[at:at] = chosen
        case 2:
            lines[at:upto] = chosen * chance.choice((2, 10, 200))
        case 3:
            lines[at:upto] = chance.sample(chosen, len(chosen))
        case _:
            to = chance.randrange(len(lines) + 1)
            lines[to:to] = chosen
    return b"\n".join(lines)


def _line_from_list(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    lines = raw.split(b"\n")
    at = chance.randrange(len(lines) + 1)
    lines[at : at + chance.randrange(2)] = chance.choices(LINES, k=chance.choice((1, 1, 2, 4)))
    return b"\n".join(lines)


def _word_change(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    found = list(WORD.finditer(raw))
    if not found:
        return raw
    match = chance.choice(found)
    word = chance.choice(
        (b"", match[0] * 2, match[0] * 300, match[0].upper(), chance.choice(found)[0], _piece(chance))
    )
    return raw[: match.start()] + word + raw[match.end() :]


def _octets_change(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(raw) + 1)
    return raw[:at] + _piece(chance) * chance.choice((1, 1, 3, 500)) + raw[at + chance.randrange(3) :]


def _splice(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    lines, more = raw.split(b"\n"), chance.choice(others).split(b"\n")
    at, begin = chance.randrange(len(lines) + 1), chance.randrange(len(more) + 1)
    end = begin + chance.choice((1, 5, 50))
    return b"\n".join([*lines[:at], *more[begin:end], *lines[at + chance.randrange(2) :]])


def _encode_body(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Encode the rest of one entity, with or without the field that says so."""
    blanks = [match.start() for match in re.finditer(rb"\n\n", raw)]
    if not blanks:
        return raw
    at = chance.choice(blanks)
    end = raw.find(b"\n--", at + 2)
    end = len(raw) if end < 0 else end
    name, encode = chance.choice(
        ((b"base64", base64.encodebytes), (b"quoted-printable", quopri.encodestring))
    )
    said = b"\nContent-Transfer-Encoding: " + name if chance.random() < 0.9 else b""
    return raw[:at] + said + b"\n\n" + encode(raw[at + 2 : end]).rstrip(b"\n") + raw[end:]


def _enclose(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Put the mail into another one."""
    head = chance.choice(others).partition(b"\n\n")[0]
    kind = chance.choice(
        (b"message/rfc822", b"text/plain", b"text/rfc822-headers", b"message/delivery-status")
    )
    return (
        head
        + b"\nContent-Type: multipart/mixed; boundary=w\n\n--w\nContent-Type: "
        + kind
        + b"\n\n"
        + raw
        + b"\n--w--\n"
    )


def _cut(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    return raw[: chance.randrange(len(raw) + 1)]


def _to_lf(raw: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    return raw.replace(b"\r\n", b"\n")


def _piece(chance: random.Random) -> bytes:
    piece = chance.choice(PIECES)
    return piece.encode(chance.choice(("utf-8", "utf-16-le")), "replace") if isinstance(piece, str) else piece


MUTATIONS: list[Callable[[bytes, random.Random, Sequence[bytes]], bytes]] = [
    *(_lines_change, _lines_change, _line_from_list, _line_from_list, _word_change, _word_change),
    *(_octets_change, _splice, _encode_body, _enclose, _cut, _to_lf),
]

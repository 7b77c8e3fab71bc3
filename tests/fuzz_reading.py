"""Look for mail that the readers cannot bear: `python tests/fuzz_reading.py --seconds 3600`.

With atheris (`pip install atheris`), mutations follow what code they reach; without it they are blind, which is slower
to find something but needs nothing installed. Either way half of them know what a mail is made of. What breaks a
property of `reading_properties` is made as small as it goes and written to `--finds`, once for each place where it
breaks; the search goes on. The exit status is 1 if anything was found.

`--seeds FOLDER` adds mail to begin from; `--corpus FOLDER` keeps what reached new code, so that the next run knows it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import importlib
import os
import quopri
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

SIZE_LIMIT = 32 * 1024  # octets of a mail that is tried
INSTRUMENTED_SECONDS = 5.0  # watching each branch costs time that is not the reader's
MINIMISING_SECONDS = 20.0

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


@dataclass
class Search:
    """The mail tried so far, and what was found."""

    properties: ModuleType
    until: float
    finds: Path
    seconds: float = 1.0  # that a mail may take
    tried: int = 0
    found: set[str] = field(default_factory=set)
    is_over: Callable[[], None] = lambda: None

    def attempt(self, raw: bytes) -> None:
        """Read one mail. Ends the search if its time is over."""
        if time.monotonic() > self.until:
            self.is_over()
            return
        self.tried += 1
        place = self._fault(raw)
        if place and place not in self.found:
            self.found.add(place)
            small = minimised(raw, lambda other: self._fault(other) == place)
            path = self.finds / f"{hashlib.sha256(small).hexdigest()[:12]}.eml"
            path.write_bytes(small)
            print(f"\nFOUND {place}\n  {path}: {small[:300]!r}", flush=True)

    def _fault(self, raw: bytes) -> str:
        """Return what a mail breaks, and where; "" if it breaks nothing."""
        try:
            self.properties.check(raw, seconds=self.seconds)
        except (self.properties.TooSlow, Exception) as error:  # noqa: BLE001 - whatever it is, it is a find
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "mailbound" in frame.filename
            ]
            at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            words = str(error).partition("\n")[0] if isinstance(error, AssertionError) else ""
            return f"{type(error).__name__} {re.sub(chr(39) + '.*' + chr(39), '...', words)} {at}"
        return ""


def minimised(raw: bytes, still: Callable[[bytes], bool]) -> bytes:
    """Return the smallest mail near `raw` of which `still` holds, as far as the time allows."""
    until = time.monotonic() + MINIMISING_SECONDS
    for parts in (rb"(?<=\n)", rb"(?<=\W)", rb"(?<=.)"):
        pieces = [piece for piece in re.split(parts, raw) if piece]
        step = max(len(pieces) // 2, 1)
        while step:
            at = 0
            while at < len(pieces) and time.monotonic() < until:
                fewer = pieces[:at] + pieces[at + step :]
                if still(b"".join(fewer)):
                    pieces = fewer
                else:
                    at += step
            step //= 2
        raw = b"".join(pieces)
    return raw


def blindly(search: Search, seeds: list[bytes], chance: random.Random) -> None:
    """Try the seeds, then changed ones until the time is over."""
    for seed in seeds:
        search.attempt(seed)
    while time.monotonic() < search.until:
        search.attempt(mutated(chance.choice(seeds), chance, seeds))


def guided(search: Search, seeds: list[bytes], corpus: Path) -> None:
    """Let atheris choose what to try. Does not return: libFuzzer ends the process."""

    def mutate(raw: bytes, size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.4:
            return atheris.Mutate(raw, size)
        return mutated(bytes(raw), chance, seeds)[:size]

    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed[:SIZE_LIMIT])
    options = [
        sys.argv[0],
        f"-max_len={SIZE_LIMIT}",
        "-rss_limit_mb=1500",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup(options, search.attempt, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    """Run the search that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to search")
    parser.add_argument("--seed", type=int, default=None, help="of the blind search, to repeat one")
    parser.add_argument("--blind", action="store_true", help="do without atheris")
    parser.add_argument(
        "--finds", type=Path, default=Path("build/finds"), help="where to write what was found"
    )
    parser.add_argument("--corpus", type=Path, help="where to keep what reached new code")
    parser.add_argument("--seeds", type=Path, action="append", default=[], help="more mail to begin from")
    wanted = parser.parse_args()
    is_guided = atheris is not None and not wanted.blind
    watching: Any = (
        atheris.instrument_imports(include=["mailbound"]) if is_guided else contextlib.nullcontext()
    )
    with watching:
        properties = importlib.import_module("reading_properties")
    seeds = properties.seeds()
    seeds += [path.read_bytes() for folder in wanted.seeds for path in folder.rglob("*") if path.is_file()]
    wanted.finds.mkdir(parents=True, exist_ok=True)
    search = Search(properties, time.monotonic() + wanted.seconds, wanted.finds)

    def end() -> None:
        print(f"{search.tried} mails tried, {len(search.found)} found", flush=True)
        os._exit(1 if search.found else 0)  # libFuzzer lets nobody else end the process

    if is_guided:
        search.seconds, search.is_over = INSTRUMENTED_SECONDS, end
        with tempfile.TemporaryDirectory() as folder:
            corpus = wanted.corpus or Path(folder)
            corpus.mkdir(parents=True, exist_ok=True)
            guided(search, seeds, corpus)
    blindly(search, seeds, random.Random(wanted.seed))
    end()


if __name__ == "__main__":
    main()

"""One inbound mail, with what every reader asks about it: whom it is to, whom from, its own words, what it returns."""

from __future__ import annotations

import re
from functools import cached_property

from mailbound.reading import phrases
from mailbound.reading.structure import Headers, Part, parse, split_header

RETURNED_TYPES = frozenset(
    {
        "message/rfc822",
        "text/rfc822-headers",
        "message/global",
        "message/global-headers",
        "message/rfc822-headers",
    }
)

ADDRESSES_LIMIT = 16 * 1024
"""How many characters of a field are searched for addresses: 20,000 recipients in To are no help to anybody."""

ADDRESS = re.compile(
    r"""(?:"(?:[^"\\\n]|\\.){1,64}"|(?<![^\s<>()\[\],;:"'`|=@\\])[^\s<>()\[\],;:"'`|=@\\][^\s<>()\[\],;:"`|@\\]{0,127})"""
    r"""@[\w-]+(?:\.[\w-]+)*"""
)
"""An address somewhere in a text. Generous, since what is mailed is generous too; a quote or `=` cannot begin it."""

# Where the sending system says whom it is for, the surest first. `To` comes last: a forger writes it at will.
_DELIVERED_TO = ("delivered-to", "x-original-to", "envelope-to", "apparently-to", "to")

_NEXT_ADDRESS = re.compile(r"\n<?[^\s@:]+@[^\s@]+:")
_COMMENT = re.compile(r"\([^()]{0,2000}\)")


class Mail:
    """One inbound mail. Everything is worked out when first asked for."""

    def __init__(self, raw: bytes) -> None:
        """Take the octets as they were fetched."""
        self.part: Part = parse(raw)
        self.headers: Headers = self.part.headers

    @cached_property
    def leaves(self) -> tuple[Part, ...]:
        """The parts that are no multiparts; none from inside an embedded message."""
        return tuple(self.part.leaves())

    @cached_property
    def subject(self) -> str:
        """The decoded Subject."""
        return self.headers.text("subject")[:1000]

    @cached_property
    def sender(self) -> str:
        """The address in From, else in Sender, in lower case; "" if there is none."""
        for name in ("from", "sender"):
            found = addresses(self.headers.text(name))
            if found:
                return found[-1].lower()
        return ""

    @cached_property
    def delivered_to(self) -> tuple[str, ...]:
        """The addresses that the mail was sent to, the surest first."""
        found = [
            address
            for name in _DELIVERED_TO
            for value in self.headers.all(name)
            for address in addresses(without_comments(value))
        ]
        return tuple(dict.fromkeys(found))

    @cached_property
    def parties(self) -> frozenset[str]:
        """Who writes and who is written to, by the header, in lower case."""
        return frozenset((self.sender, *(address.lower() for address in addresses(self.headers.get("to")))))

    @cached_property
    def has_null_path(self) -> bool:
        """Whether its reverse-path was empty, as that of every report is (RFC 5321 §4.5.5)."""
        return self.headers.get("return-path").replace(" ", "") == "<>"

    @cached_property
    def is_from_daemon(self) -> bool:
        """Whether a mail system calls itself its sender."""
        stated = self.headers.text("from") or self.headers.text("sender")
        return stated.strip() == "<>" or bool(phrases.DAEMON.search(stated))

    @cached_property
    def may_report(self) -> bool:
        """Whether its headers let it be a report of a mail system at all."""
        return (
            self.has_null_path
            or self.is_from_daemon
            or "x-failed-recipients" in self.headers
            or self.part.content_type == "multipart/report"
            or (bool(phrases.REPORT_SUBJECT.search(self.subject)) and not self.is_discussion)
        )

    @cached_property
    def is_discussion(self) -> bool:
        """Whether people talk to each other: a reply, or mail of a list, whatever its subject speaks of."""
        return (
            "list-unsubscribe" in self.headers
            or "list-id" in self.headers
            or bool(phrases.REPLY_SUBJECT.match(self.subject))
        )

    @cached_property
    def words(self) -> str:
        """What the mail itself says: its first texts, cut off where it gives a message back."""
        texts = []
        for part in self.leaves:
            if part.content_type in RETURNED_TYPES:
                break
            if part.text.strip():
                texts.append(part.text)
        return self._cut("\n".join(texts))[0]

    @cached_property
    def returned(self) -> tuple[Headers, ...]:
        """The header blocks of the messages that it gives back."""
        blocks = [
            split_header(part.content.replace(b"\r\n", b"\n").lstrip(b"\n"))[0]
            for part in self.leaves
            if part.content_type in RETURNED_TYPES
        ]
        if not blocks:
            below = (self._cut(part.text)[1].lstrip("\n") for part in self.leaves)
            blocks = [split_header(text.encode("utf-8", "replace"))[0] for text in below if text]
        return tuple(Headers(block) for block in blocks)

    def _cut(self, text: str) -> tuple[str, str]:
        match = phrases.RETURNED_BELOW.search("\n" + text)
        if not match:
            return text, ""
        begin = match.start()  # of the newline there, hence of its line here
        line = match[0].lstrip("\n \t>*|").lower()
        is_header = line.startswith(("received:", "return-path:"))
        return text[:begin], text[begin if is_header else match.end() - 1 :]

    def said_of(self, address: str) -> str:
        """Return the paragraph of its words that names `address`, from there on; "" if none does."""
        if not address:
            return ""
        begin = self.words.lower().find(address.lower())
        if begin < 0:
            return ""
        paragraph = self.words[begin + len(address) :].partition("\n\n")[0]
        paragraph = _NEXT_ADDRESS.split(paragraph, maxsplit=1)[0]
        return paragraph.lstrip(">:) \t\n")[:2000]


def addresses(text: str) -> list[str]:
    """Return the addresses in `text`, in order, as far as the limit."""
    return [match[0].rstrip(".") for match in ADDRESS.finditer(text[:ADDRESSES_LIMIT])] if "@" in text else []


def without_comments(value: str) -> str:
    """Return a structured field without its comments (RFC 5322 §3.2.2)."""
    for _ in range(5):  # as deep as anybody nests them
        if "(" not in value:
            break
        value = _COMMENT.sub("", value)
    return value

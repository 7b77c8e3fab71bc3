"""One inbound mail, with what every reader asks about it: whom it is to, whom from, its own words, what it returns."""

from __future__ import annotations

import re

from mailbound.reading import authorship, phrases, returned
from mailbound.reading.once import Once
from mailbound.reading.structure import SIZE_LIMIT, Headers, Part, field_values, parse, split_header, with_lf

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

WORDS_LIMIT = 64 * 1024
"""How many characters of its own words are read: a report says what it has to say at its top."""

TARGETS_LIMIT = 100
"""How many addresses a returned message may be for."""

_AROUND = r"""\s<>()\[\],;:"`|@\\“”„「」『』【】《》〈〉、。\uff08\uff09\uff0c\uff1a\uff1b\uff3b\uff3d"""
"""What an address does not contain, and may therefore touch."""

ADDRESS = re.compile(
    rf"""(?:"(?:[^"\\\n]|\\.){{1,64}}"|(?<![^{_AROUND}'=])[^{_AROUND}'=][^{_AROUND}]{{0,127}})"""
    r"""@[\w-]+(?:\.[\w-]+)*"""
)
"""An address somewhere in a text. Generous, since what is mailed is generous too; a quote or `=` cannot begin it."""

# As most fields are: a name without any sign, and one address. It is quicker, and finds the same.
_ONLY_ADDRESS = re.compile(r"(?:[\w .-]{0,80}<)?([\w.+-][\w.+=-]{0,127}@[\w-]++(?:\.[\w-]+)*+)>?\Z", re.ASCII)

# Where a returned message shows whom it was for, the surest first. `To` and `Cc` come last: they are people's words.
_TARGETS = ("x-failed-recipients", "x-original-to", "x-rcpt-to", "x-receiver", "apparently-to", "to", "cc")
_RECEIVED_FOR = re.compile(rf"(?i)\bfor\s+<?({ADDRESS.pattern})")

# Where a returned message shows whose it is.
_AUTHORS = ("return-path", "from", "sender", "reply-to", "errors-to")

# Where the sending system says whom it is for, the surest first. `To` comes last: a forger writes it at will.
_DELIVERED_TO = ("delivered-to", "x-original-to", "envelope-to", "apparently-to", "to")

_NEXT_ADDRESS = re.compile(r"\n<?[^\s@:]+@[^\s@]+:")
_MESSAGE_ID = re.compile(r"<([^<>\s]{1,998})>")
_TRANSCRIPT = re.compile(r"-{3,} *(?:session )?transcript (?:of session )?(?:follows )?-{3,}")
_COMMENT = re.compile(r"\([^()]{0,2000}\)")


class Mail:
    """One inbound mail. Everything is worked out when first asked for."""

    def __init__(self, raw: bytes) -> None:
        """Take the octets as they were fetched."""
        self.part: Part = parse(raw)
        self.headers: Headers = self.part.headers
        self._raw = raw[:SIZE_LIMIT]
        self._mentioned: dict[bytes, bool] = {}
        self._cuts: dict[str, tuple[str, str]] = {}

    def mentions(self, word: bytes) -> bool:
        """Tell whether `word`, in lower case, stands anywhere in the octets: quicker than looking for a part."""
        if word not in self._mentioned:
            self._mentioned[word] = word in self._small
        return self._mentioned[word]

    def mentions_part(self, word: bytes) -> bool:
        """Tell the same of a word in the type of a part: a single text has none."""
        return not self._is_single and self.mentions(word)

    @property
    def may_hold_object(self) -> bool:
        """Tell whether it may hold an object of JSON: there is a brace, or what quoted-printable makes of one."""
        return b"{" in self._raw or b"=7B" in self._raw

    @Once
    def _is_single(self) -> bool:
        is_text = self.part.content_type.startswith("text/")
        return is_text and "report" not in self.headers.get("content-type").lower()

    @Once
    def _small(self) -> bytes:
        return self._raw.lower()

    @Once
    def leaves(self) -> tuple[Part, ...]:
        """Return the parts that are no multiparts; none from inside an embedded message."""
        return tuple(self.part.leaves()) if self.part.parts else (self.part,)

    @Once
    def subject(self) -> str:
        """Return the decoded Subject."""
        return self.headers.text("subject")[:1000]

    @Once
    def small_subject(self) -> str:
        """Return the same in lower case."""
        return phrases.small(self.subject)

    @Once
    def sender(self) -> str:
        """Return the address in From, else in Sender, in lower case; "" if there is none."""
        for name in ("from", "sender"):
            found = addresses(self.headers.text(name))
            if found:
                return found[-1].lower()
        return ""

    @Once
    def delivered_to(self) -> tuple[str, ...]:
        """Return the addresses that the mail was sent to, the surest first."""
        values = [value for name in _DELIVERED_TO if name in self.headers for value in self.headers.all(name)]
        once = dict.fromkeys(values)  # most fields say the same
        found = (address for value in once for address in addresses(without_comments(value)))
        return tuple(dict.fromkeys(found))

    @Once
    def parties(self) -> frozenset[str]:
        """Return who writes and who is written to, by the header, in lower case."""
        return frozenset((self.sender, *(address.lower() for address in addresses(self.headers.get("to")))))

    @Once
    def has_null_path(self) -> bool:
        """Tell whether its reverse-path was empty, as that of every report is (RFC 5321 §4.5.5)."""
        return self.headers.get("return-path").replace(" ", "") == "<>"

    @Once
    def is_from_nobody(self) -> bool:
        """Tell whether nobody is to answer it: its reverse-path, or the address in From, is empty."""
        return self.has_null_path or self.headers.get("from").replace(" ", "").endswith("<>")

    @Once
    def is_from_daemon(self) -> bool:
        """Tell whether a mail system calls itself its sender."""
        stated = self.headers.text("from") or self.headers.text("sender")
        low = phrases.small(stated).strip()
        return low.endswith("<>") or bool(phrases.DAEMON.search(low) or phrases.OFFICE.search(low))

    @Once
    def calls_itself_report(self) -> bool:
        """Tell whether its sender or its subject is that of a report."""
        return self.is_from_daemon or bool(phrases.REPORT_SUBJECT.search(self.small_subject))

    @Once
    def may_report(self) -> bool:
        """Tell whether it can be a report of a mail system at all: one wrote it, or it is laid out as one."""
        return authorship.may_report(self)

    @Once
    def is_by_system(self) -> bool:
        """Tell whether its headers show that a mail system wrote it."""
        return authorship.is_by_system(self)

    @Once
    def is_delivery_report(self) -> bool:
        """Tell whether its parts are those of a report on deliveries: there are reports on signatures and TLS, too."""
        stated = self.part.parameter("report-type").lower()
        return self.part.content_type == "multipart/report" and (
            not stated or "deliver" in stated or "status" in stated
        )

    @Once
    def is_discussion(self) -> bool:
        """Tell whether people talk to each other: a reply, or mail of a list, whatever its subject speaks of."""
        return (
            "list-unsubscribe" in self.headers
            or "list-id" in self.headers
            or bool(phrases.REPLY_SUBJECT.match(self.small_subject))
        )

    @Once
    def words(self) -> str:
        """Return what the mail itself says: its first texts, cut off where it gives a message back."""
        texts: list[str] = []
        left = WORDS_LIMIT
        for part in self.leaves:
            if left <= 0 or part.content_type in RETURNED_TYPES or (texts and returned.is_header(part.text)):
                break
            if part.text and not part.text.isspace():
                texts.append(part.text)
                left -= len(part.text)
        return self._cut("\n".join(texts)[:WORDS_LIMIT])[0]

    @Once
    def small_words(self) -> str:
        """Return the same in lower case, each character in its place."""
        return phrases.small(self.words)

    @Once
    def returned_ids(self) -> tuple[str, ...]:
        """Return the Message-IDs of the messages that it gives back, without their angle brackets."""
        blocks = (split_header(message)[0] for message in self.given_back)
        values = (value for block in blocks for value in field_values(block, b"message-id"))
        return tuple(dict.fromkeys(found for value in values for found in _MESSAGE_ID.findall(value)))

    @Once
    def given_back(self) -> tuple[bytes, ...]:
        """Return the messages that it gives back, or what it gives of them; lines end with LF."""
        embedded = [
            with_lf(part.content).lstrip(b"\n") for part in self.leaves if part.content_type in RETURNED_TYPES
        ]
        if embedded:
            return tuple(embedded)
        embedded = [
            part.text.strip().encode("utf-8", "replace")
            for part in self.leaves[1:]
            if returned.is_header(part.text)
        ]
        if embedded:
            return tuple(embedded)
        below = (returned.unquoted(self._cut(part.text)[1].lstrip("\n")) for part in self.leaves)
        return tuple(text.encode("utf-8", "replace") for text in below if text.strip())

    @Once
    def targets(self) -> tuple[str, ...]:
        """Return whom the first returned message was for, the surest first; none if it came through a list."""
        found: list[str] = []
        for message in self.given_back[:1]:
            headers = Headers(split_header(message)[0])
            if "list-id" in headers or "list-post" in headers:
                continue
            match = _RECEIVED_FOR.search(headers.get("received"))
            found += [match[1]] if match else []
            for name in _TARGETS:
                for value in headers.all(name):
                    found += addresses(without_comments(value))
        once: dict[str, str] = {}
        for address in found:
            once.setdefault(address.lower(), address)
        return tuple(once.values())[:TARGETS_LIMIT]

    @Once
    def returned_authors(self) -> tuple[str, ...]:
        """Return who wrote the messages that it gives back, in lower case; "" where a header does not say."""
        return tuple(_author(message) for message in self.given_back)

    @Once
    def returned_hosts(self) -> frozenset[str]:
        """Return the domains that the first message given back came from, in lower case."""
        headers = Headers(split_header(self.given_back[0])[0] if self.given_back else b"")
        found = (address for name in _AUTHORS for address in addresses(headers.get(name)))
        return frozenset(address.lower().rpartition("@")[2] for address in found)

    def _cut(self, text: str) -> tuple[str, str]:
        """Return what stands in `text` before a message that is given back, and that message."""
        if text not in self._cuts:
            self._cuts[text] = returned.cut(text)
        return self._cuts[text]

    @Once
    def transcript(self) -> str:
        """Return what its words quote of the session, "" if they quote none (Sendmail and its descendants do)."""
        match = _TRANSCRIPT.search(self.small_words)
        return self.words[match.end() :].partition("\nReporting-MTA:")[0].strip()[:2000] if match else ""

    def said_of(self, address: str) -> str:
        """Return the paragraph of its words that names `address`, from there on; "" if none does."""
        if not address:
            return ""
        begin = self.small_words.find(phrases.small(address))
        if begin < 0:
            return ""
        paragraph = self.words[begin + len(address) :].partition("\n\n")[0]
        paragraph = _NEXT_ADDRESS.split(paragraph, maxsplit=1)[0]
        return paragraph.lstrip(">:) \t\r\n")[:2000]


def sender_of(head: bytes) -> str:
    """Return whom a mail is from, of which `head` is the beginning; "" if its header does not say.

    That is the address in From, else in Sender, else the return path as the last host wrote it down.
    """
    mail = Mail(head)
    return mail.sender or mail.headers.get("return-path")


def _author(message: bytes) -> str:
    """Return who wrote a message that is given back, in lower case; "" if its header does not say."""
    return next(iter(field_values(split_header(message)[0], b"from")), "").lower()


def addresses(text: str) -> list[str]:
    """Return the addresses in `text`, in order, as far as the limit."""
    if only := _ONLY_ADDRESS.match(text):
        return [only[1]]
    return [match[0].rstrip(".") for match in ADDRESS.finditer(text[:ADDRESSES_LIMIT])] if "@" in text else []


def without_comments(value: str) -> str:
    """Return a structured field without its comments (RFC 5322 §3.2.2)."""
    depth = 0
    while "(" in value and depth < 5:  # as deep as anybody nests them
        depth += 1
        value = _COMMENT.sub("", value)
    return value

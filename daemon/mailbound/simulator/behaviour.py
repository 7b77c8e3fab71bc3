"""What a simulated recipient does, told by the local part of its address.

Each name of the catalogue may be followed by `+`, `.`, `-` or `_` and anything, so that there can be
many of a kind: `full@`, `full-17@` and `full+spring@` all have a full mailbox. Any other address takes
its mail, except for a random share.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from bisect import bisect
from dataclasses import dataclass

from mailbound.model import Kind, Reply

_NOBODY = Reply(0, "")


@dataclass(frozen=True, slots=True)
class Answer:
    """One mail that comes back some time after the message was accepted."""

    kind: Kind
    status: str = ""  # RFC 3463
    reply: Reply = _NOBODY  # what the recipient's host said; code 0: there was none to ask
    after: int = 1  # so many times the usual delay


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a recipient does. The texts hold {recipient} and {domain}, for `fill` to put in."""

    about: str  # what happens to a message to it, for people
    at_rcpt: Reply | None = None  # refused there
    at_end: Reply | None = None  # refused at the final dot
    greylisted: bool = False  # deferred once for each sender
    slow: bool = False  # takes its time before it replies to the final dot
    hangs_up: bool = False  # closes the connection instead of a reply to the final dot
    loses: bool = False  # and has not taken the message
    answers: tuple[Answer, ...] = ()


_TEXTS: dict[str, tuple[int, str]] = {
    # A code of 0 means that no host was reached which could have said it.
    "5.1.0": (550, "<{recipient}>: Address rejected"),
    "5.1.1": (550, "<{recipient}>: Recipient address rejected: User unknown in virtual mailbox table"),
    "5.1.2": (0, "Host or domain name not found. Name service error for name={domain}: Host not found"),
    "5.1.3": (553, "<{recipient}>: Bad recipient address syntax"),
    "5.1.6": (551, "<{recipient}>: User has moved and left no forwarding address"),
    "5.1.10": (556, "<{recipient}>: Recipient address rejected: Domain {domain} has a null MX"),
    "5.2.1": (550, "<{recipient}>: This mailbox is disabled and takes no mail"),
    "5.2.2": (552, "<{recipient}>: Mailbox is full: the account is over quota"),
    "5.2.3": (552, "<{recipient}>: Message is longer than this mailbox takes"),
    "5.3.0": (554, "<{recipient}>: Mail system error, message not delivered"),
    "5.3.4": (552, "Message size exceeds the fixed limit of this server"),
    "5.4.4": (0, "Unable to route: no mail server for {domain} could be found"),
    "5.4.6": (554, "Too many hops: this message is going round in a loop"),
    "5.6.0": (554, "Message content rejected: its MIME structure is broken"),
    "5.7.1": (554, "Service unavailable; client host [192.0.2.25] blocked for its poor sending reputation"),
    "5.7.26": (550, "Unauthenticated mail from this domain is not accepted owing to its DMARC policy"),
    "4.2.0": (450, "<{recipient}>: Recipient address rejected: Greylisted, please try again later"),
    "4.2.1": (450, "<{recipient}>: Mailbox temporarily disabled, try again later"),
    "4.2.2": (452, "<{recipient}>: Mailbox is full: the account is over quota"),
    "4.3.0": (451, "Mail system temporarily out of order"),
    "4.3.2": (421, "Service not available, closing the connection"),
    "4.4.1": (0, "connect to mx.{domain}[192.0.2.80]:25: Connection timed out"),
    "4.4.7": (0, "delivery time expired: connect to mx.{domain}[192.0.2.80]:25: Connection timed out"),
    "4.7.0": (421, "Too many messages from your address, slow down"),
    "4.7.1": (450, "Message deferred: unusual volume from client host [192.0.2.25]"),
}
_OTHERWISE = {
    "5": (550, "<{recipient}>: Delivery is not possible"),
    "4": (450, "<{recipient}>: Delivery is not possible at the moment"),
    "2": (250, "Ok"),
}


def _failed(status: str, after: int = 1) -> Answer:
    code, text = _TEXTS.get(status, _OTHERWISE[status[0]])
    return Answer(Kind.BOUNCE, status, Reply(code, f"{status} {text}" if code else text), after)


def _refusal(status: str, code: int = 0) -> Reply:
    usual, text = _TEXTS.get(status, _OTHERWISE[status[0]])
    return Reply(code or usual or _OTHERWISE[status[0]][0], f"{status} {text}")


_DELAYED = Answer(Kind.DELAY, "4.4.1", _failed("4.4.1").reply)
_DELIVERED = Answer(Kind.SUCCESS, "2.0.0", Reply(250, "2.0.0 Ok: stored in the mailbox"))

_REFUSED_BY_POLICY = Answer(
    Kind.BOUNCE, "5.7.1", Reply(554, "5.7.1 <{recipient}>: Message refused by the policy of this site")
)

CATALOGUE: dict[str, Behaviour] = {
    "bounce": Behaviour("bounces with 5.1.1; bounce+5.2.2@ with that status", answers=(_failed("5.1.1"),)),
    "full": Behaviour("bounces: the mailbox is full (5.2.2)", answers=(_failed("5.2.2"),)),
    "disabled": Behaviour("bounces: the mailbox is disabled (5.2.1)", answers=(_failed("5.2.1"),)),
    "moved": Behaviour("bounces: the user has moved (5.1.6)", answers=(_failed("5.1.6"),)),
    "no-such-domain": Behaviour("bounces: there is no such domain (5.1.2)", answers=(_failed("5.1.2"),)),
    "expired": Behaviour("bounces: the host was never reached (4.4.7)", answers=(_failed("4.4.7"),)),
    "policy": Behaviour("bounces: refused by a policy (5.7.1)", answers=(_REFUSED_BY_POLICY,)),
    "blocked": Behaviour("bounces: our host has a poor reputation (5.7.1)", answers=(_failed("5.7.1"),)),
    "delay": Behaviour("is reported as delayed, and then no more is heard", answers=(_DELAYED,)),
    "delay-fail": Behaviour("is reported as delayed, then bounces", answers=(_DELAYED, _failed("4.4.7", 3))),
    "success": Behaviour("is reported as delivered, where that was asked for", answers=(_DELIVERED,)),
    "complaint": Behaviour("complains by a feedback report", answers=(Answer(Kind.COMPLAINT),)),
    "autoreply": Behaviour("answers automatically: away", answers=(Answer(Kind.AUTO_REPLY),)),
    "unsubscribe": Behaviour("mails where List-Unsubscribe says", answers=(Answer(Kind.UNSUBSCRIBE),)),
    "refuse": Behaviour(
        "is refused at RCPT with 550 5.1.1; refuse+451-4.7.1@ with those codes", at_rcpt=_refusal("5.1.1")
    ),
    "greylist": Behaviour("is deferred at RCPT the first time", greylisted=True),
    "spam": Behaviour("is refused at the final dot (554 5.7.1)", at_end=_refusal("5.7.1")),
    "slow": Behaviour("is accepted after a while", slow=True),
    "unknown": Behaviour("is accepted, but the connection ends before that is said", hangs_up=True),
    "drop": Behaviour("is lost: the connection ends at the final dot", hangs_up=True, loses=True),
}

ORDINARY = Behaviour("is accepted")

# What an ordinary address that bounces says, and how many of a hundred do.
_MIX = {"bounce": 62, "full": 14, "disabled": 8, "no-such-domain": 6, "expired": 5, "policy": 5}
_MIX_NAMES = tuple(_MIX)
_MIX_BOUNDS = tuple(itertools.accumulate(_MIX.values()))[:-1]

_NAME = re.compile(
    "({})(?:[-+._](.*))?".format("|".join(sorted(CATALOGUE, key=len, reverse=True))), re.DOTALL
)
_CODES = re.compile(r"(?:([245]\d\d)(?:-|(?![0-9.])))?([245]\.\d{1,3}\.\d{1,3})?(?![0-9])")


def behave(address: str, *, bounce_rate: float = 0.0, seed: int = 0) -> Behaviour:
    """Return what the recipient at `address` does; always the same for the same arguments."""
    named = _NAME.fullmatch(address.rpartition("@")[0].lower())
    if named is None:
        return _at_random(address, bounce_rate, seed)
    name, rest = named.group(1), named.group(2) or ""
    codes = _CODES.match(rest)
    code, status = codes.groups() if codes else (None, None)
    if name == "bounce" and status and status[0] != "2":
        return Behaviour(f"bounces with {status}", answers=(_failed(status),))
    if name == "refuse" and (code or status):
        return _refused_with(code, status)
    return CATALOGUE[name]


def fill(text: str, address: str) -> str:
    """Return `text` with {recipient} and {domain} put in."""
    return text.replace("{recipient}", address).replace("{domain}", address.rpartition("@")[2])


def _refused_with(code: str | None, status: str | None) -> Behaviour:
    if (code or status or "")[0] == "2":
        return ORDINARY
    if status is not None:
        reply = _refusal(status, int(code or 0))
    else:  # some servers give none
        reply = Reply(int(code or 0), _OTHERWISE[(code or "5")[0]][1])
    return Behaviour(f"is refused at RCPT with {reply.code}", at_rcpt=reply)


def _at_random(address: str, bounce_rate: float, seed: int) -> Behaviour:
    if bounce_rate <= 0:
        return ORDINARY
    digest = hashlib.blake2b(f"{seed} {address.lower()}".encode(), digest_size=16).digest()
    if int.from_bytes(digest[:8], "big") >= bounce_rate * 2**64:
        return ORDINARY
    of_a_hundred = int.from_bytes(digest[8:], "big") % 100
    return CATALOGUE[_MIX_NAMES[bisect(_MIX_BOUNDS, of_a_hundred)]]

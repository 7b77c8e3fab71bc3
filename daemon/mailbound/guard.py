"""The guard against mass bounces: when many addresses die at once and alike, our own side or theirs is broken.

A broken resolver of ours, a provider's bad day or a relay that refuses everybody says *no such user* of people who
exist. What so many failures have in common is one of four things:

    text      they came back with one text, nobody's name in it
    remote    one host, or the hosts of one domain, gave them
    domain    they are most of what went to one recipient domain
    run       they are a large share of what a run has settled

Only what could make an address dead is looked at: permanent, and about the address or unclear. What blames us halts a
run by `breaker`.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mailbound.classify import normal
from mailbound.config import Guard
from mailbound.model import Category, Fault

DEADLY = frozenset(category for category in Category if category.fault in {Fault.ADDRESS, Fault.UNCLEAR})
"""The categories that can make an address dead, where they are permanent."""

_LONGEST = 160
_CODE = re.compile(r"[245]\d\d-?|(?:[245]\d\d-)?[245]\.\d{1,3}\.\d{1,3}")
_EDGES = "<>()[]{}'\"`,;:!?.|-"


class By(StrEnum):
    """What bounces have in common, what tells most of the cause first."""

    TEXT = "text"
    REMOTE = "remote"
    DOMAIN = "domain"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Traits:
    """What the guard compares of a bounce; "" is nothing to compare."""

    run_id: int
    text: str  # as `gist` returns it
    remote: str  # a host name, as reported
    domain: str  # of the recipient

    def of(self, by: By) -> str:
        """Return what this bounce may have in common with others."""
        if by is By.RUN:
            return str(self.run_id)
        return {By.TEXT: self.text, By.REMOTE: family(self.remote), By.DOMAIN: self.domain}[by]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Bounces of one store that have something in common, and the runs that they are of."""

    by: By
    subject: str
    count: int
    run_ids: frozenset[int]


def crowds(counts: Mapping[Traits, int], limits: Guard) -> list[Crowd]:
    """Return what at least `count` of a store's bounces have in common: what tells most first, then the largest."""
    sums: Counter[tuple[By, str]] = Counter()
    run_ids: defaultdict[tuple[By, str], set[int]] = defaultdict(set)
    for traits, count in counts.items():
        for by in By:
            if subject := traits.of(by):
                sums[by, subject] += count
                run_ids[by, subject].add(traits.run_id)
    found = [
        Crowd(by, subject, count, frozenset(run_ids[by, subject]))
        for (by, subject), count in sums.items()
        if count >= limits.count
    ]
    return sorted(found, key=lambda crowd: (list(By).index(crowd.by), -crowd.count, crowd.subject))


def alarm(crowd: Crowd, *, settled: int, limits: Guard) -> str | None:
    """Return why the changes of a crowd must be held, or None if they may be as many.

    `settled` counts what was tried in its runs, or of a crowd by domain what was tried there.
    """
    least = {By.RUN: limits.run_share, By.DOMAIN: limits.domain_share}.get(crowd.by, limits.alike_share)
    if crowd.count < limits.count or crowd.count < least * settled:
        return None
    share = f"{crowd.count:,} of {max(settled, crowd.count):,}"
    match crowd.by:
        case By.RUN:
            return f"{share} addresses of the run are said to be dead"
        case By.DOMAIN:
            return f"{share} addresses at {crowd.subject} are said to be dead"
        case By.REMOTE:
            return f"{share} deliveries failed for good at {crowd.subject}"
        case By.TEXT:
            return f"{share} deliveries failed for good with one text"


def without(counts: Mapping[Traits, int], crowd: Crowd) -> dict[Traits, int]:
    """Return what is left to count once a crowd is held."""
    return {traits: count for traits, count in counts.items() if traits.of(crowd.by) != crowd.subject}


def halts(by: By) -> bool:
    """Return whether the runs of a crowd must halt. One domain may have closed, and the others want their mail."""
    return by is not By.DOMAIN


def gist(text: str, address: str = "") -> str:
    """Return what a diagnostic says without what differs from one recipient of `address` to the next."""
    local, _, _ = address.lower().rpartition("@")
    words = [_common(word.strip(_EDGES), local) for word in normal.text(text).split()]
    return " ".join(word for word in words if word)[:_LONGEST].rstrip()


def _common(word: str, local: str) -> str:
    return "someone" if word in {local, normal.SOMEONE} else _kind_of(word)


@functools.lru_cache(4096)  # the replies of one campaign have few words
def _kind_of(word: str) -> str:
    if _CODE.fullmatch(word):
        return word
    if "." in word or "/" in word:
        return "*"  # a host, an address of one, a link
    return "#" if any(letter.isdigit() for letter in word) else word


def family(host: str) -> str:
    """Return by what the hosts of one operator are alike: `google.com` of `alt1.gmail-smtp-in.l.google.com`."""
    labels = host.lower().strip(" .").split(".")
    if len(labels) < 2 or labels[-1].isdigit():  # no name, or an IP address
        return ".".join(labels)
    second = len(labels[-1]) == 2 and len(labels[-2]) <= 3  # as in co.uk
    return ".".join(labels[-3 if second else -2 :])

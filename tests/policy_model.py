"""The policy table in the plainest words: what every report, wish and day must come to. No code of the daemon is in it.

Everything that was ever said is kept as it came, and each question is answered by looking through all of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta

DAY = timedelta(days=1)

DEAD_AT_ONCE = {"no-such-user", "moved"}
DEAD_IF_CONFIRMED = {"no-such-domain", "disabled"}
OF_THE_ADDRESS = DEAD_AT_ONCE | DEAD_IF_CONFIRMED | {"unclear"}
OURS = {"blocked", "reputation", "authentication", "policy", "rate", "content", "virus", "too-large"}
ARRIVED = {"delivered", "relayed", "expanded"}


@dataclass
class Written:
    """One value that was written somewhere, and the report that wrote it, if one did."""

    value: tuple
    at: datetime
    by: object = None


@dataclass(eq=False)
class Sent:
    """One delivery."""

    person: str
    address: str
    store: str
    at: datetime
    refused: bool = False


@dataclass(eq=False)
class Said:
    """One report about one delivery."""

    of: Sent
    at: datetime
    action: str
    category: str
    permanent: bool
    direct: bool
    counts: bool = True


@dataclass
class Model:
    """What there is: wishes and statuses as heaps of values, the last one on top."""

    address_of: dict[str, str] = field(default_factory=dict)
    wishes: dict[tuple[str, str], list[Written]] = field(default_factory=dict)
    statuses: dict[str, list[Written]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)  # people and addresses
    left: dict[str, set[str]] = field(default_factory=dict)  # the addresses that somebody had before

    # --- what can be asked ---------------------------------------------------------------------------------

    def status(self, address: str) -> tuple:
        """Return the status of an address, its category, and until when."""
        heap = self.statuses.get(address)
        return heap[-1].value if heap else ("deliverable", "", None)

    def wish(self, person: str, store: str) -> tuple | None:
        heap = self.wishes.get((person, store))
        return heap[-1].value if heap else None

    def wants(self, person: str, store: str) -> bool:
        wish = self.wish(person, store)
        return wish is not None and wish[0]

    def people_of(self, address: str) -> list[str]:
        return [person for person, theirs in self.address_of.items() if theirs == address]

    def wanted(self, store: str, now: datetime) -> list[str]:
        """Return who is to get mail of a store, as far as their wish and their address are concerned."""
        held = {
            address
            for address in self.statuses
            if self.status_at(address, now) in {"undeliverable", "suspended"}
        }
        return [
            person
            for person, address in self.address_of.items()
            if self.wants(person, store) and address not in held
        ]

    def last_success(self, address: str, now: datetime) -> datetime | None:
        """Return when mail last arrived: as reported, or accepted five days ago, and nobody said anything."""
        reported = [
            said.at
            for said in self.said
            if said.of.address == address and said.action == "delivered" and said.counts
        ]
        quiet = [
            sent.at
            for sent in self.sent
            if sent.address == address
            and not sent.refused
            and sent.at <= now - 5 * DAY
            and not self.spoken_of(sent)
        ]
        return max(reported + quiet, default=None)

    def spoken_of(self, sent: Sent) -> bool:
        """Return whether anybody said what became of it."""
        return any(said.of is sent and said.action in {"failed", "delayed"} | ARRIVED for said in self.said)

    def new_chance(self, address: str) -> datetime | None:
        """Return when somebody with the address last opted in anew, or it was put on probation."""
        chances = [
            self.wishes[person, store][-1].at
            for person, store in self.wishes
            if self.address_of.get(person) == address and self.wish(person, store) == (True, "user")
        ]
        if self.status(address)[0] == "probation":
            chances.append(self.statuses[address][-1].at)
        return max(chances, default=None)

    def failures(self, address: str, now: datetime) -> list[Said]:
        """Return the failures that count: after the last success, of what was sent since the last new chance."""
        success, chance = self.last_success(address, now), self.new_chance(address)
        return [
            said
            for said in self.said
            if said.action == "failed"
            and said.of.address == address
            and said.counts
            and not self._behind_an_arrival(said)
            and (success is None or said.at > success)
            and (chance is None or (said.at if said.direct else said.of.at) >= chance)
        ]

    def _behind_an_arrival(self, said: Said) -> bool:
        earlier = itertools.takewhile(lambda each: each is not said, self.said)
        return any(each.of is said.of and each.action in ARRIVED and each.counts for each in earlier)

    def soft_days(self, address: str, now: datetime) -> set:
        """Return the days of the last thirty on which the address failed softly."""
        return {
            said.at.date()
            for said in self.failures(address, now)
            if now - said.at <= 30 * DAY
            and said.category not in OURS
            and not (said.permanent and said.category in OF_THE_ADDRESS)
        }

    # --- what can happen -----------------------------------------------------------------------------------

    def write_wish(self, person: str, store: str, value: tuple, at: datetime, by: object = None) -> None:
        if self.wish(person, store) != value:
            self.wishes.setdefault((person, store), []).append(Written(value, at, by))

    def write_status(self, address: str, value: tuple, at: datetime, by: object = None) -> None:
        status, _, until = self.status(address)
        if (status, until) != (value[0], value[2]):
            self.statuses.setdefault(address, []).append(Written(value, at, by))

    def send(self, store: str, now: datetime) -> list[Sent]:
        """Send to each that wants it; of those who share an address, to one."""
        first: dict[str, str] = {}
        for person in self.wanted(store, now):
            first.setdefault(self.address_of[person], person)
        sent = [Sent(person, address, store, now) for address, person in first.items()]
        self.sent += sent
        return sent

    def say(
        self,
        sent: Sent,
        action: str,
        category: str,
        *,
        permanent: bool,
        now: datetime,
        direct: bool = False,
        own: bool = True,
        counts: bool = True,
    ) -> Said | None:
        """Take a report. Returns None if it came before; one that does not count was never genuine."""
        if not counts or (not direct and now - sent.at > 30 * DAY):
            said = Said(sent, now, "", "", permanent=False, direct=direct, counts=False)
            self.said.append(said)
            return said
        kind = "arrived" if action in ARRIVED else permanent
        if any(said.of is sent and (said.action, self._kind(said)) == (action, kind) for said in self.said):
            return None
        said = Said(sent, now, action, category if own else "unclear", permanent, direct)
        if action == "failed" and (own or not self._behind_an_arrival(said)):
            self._fail(said, now)
        if action == "delivered" and self.status_at(sent.address, now) in {"probation", "suspended"}:
            self.write_status(sent.address, ("deliverable", "", None), now, said)
        if action == "complained" and sent.person not in self.erased:
            self.write_wish(sent.person, sent.store, (False, "complaint"), now, said)
        self.said.append(said)
        return said

    @staticmethod
    def _kind(said: Said) -> object:
        return "arrived" if said.action in ARRIVED else said.permanent

    def status_at(self, address: str, now: datetime) -> str:
        status, _, until = self.status(address)
        return "deliverable" if until is not None and until <= now else status

    def _fail(self, said: Said, now: datetime) -> None:
        address, category = said.of.address, said.category
        chance, status = self.new_chance(address), self.status_at(address, now)
        too_old = chance is not None and not said.direct and said.of.at < chance
        if category in OURS or too_old or status == "undeliverable":
            return
        if not (said.permanent and category in OF_THE_ADDRESS):
            days = self.soft_days(address, now)
            if now.date() not in days and len(days) + 1 > 5 and status != "suspended":
                self.write_status(address, ("suspended", category, now + 30 * DAY), now, said)
            return
        earlier = [
            each for each in self.failures(address, now) if each.permanent and each.category in OF_THE_ADDRESS
        ]
        if category in DEAD_AT_ONCE:
            dead = True
        elif category in DEAD_IF_CONFIRMED:
            dead = any(each.category in DEAD_IF_CONFIRMED and now - each.at >= 3 * DAY for each in earlier)
        else:
            dead = len({each.at.date() for each in earlier} | {now.date()}) >= 3
        if dead:
            self.write_status(address, ("undeliverable", category, None), now, said)
            person, store = said.of.person, said.of.store
            if self.address_of.get(person) == address and self.wants(person, store):
                self.write_wish(person, store, (False, "hard_bounce"), now, said)

    def unsubscribe(self, person: str, store: str, now: datetime) -> object:
        by = Said(Sent(person, "", store, now), now, "", "", permanent=False, direct=False)
        for other in self.people_of(self.address_of[person]) if person in self.address_of else []:
            self.write_wish(other, store, (False, "unsubscribe"), now, by)
        return by

    def consent(self, person: str, store: str, now: datetime) -> None:
        """An import brings the consent of this very moment."""
        if person in self.erased:
            return
        source = "import" if self.wish(person, store) is None else "user"
        self.wishes.setdefault((person, store), []).append(Written((True, source), now))
        address = self.address_of[person]
        if self.status(address)[0] in {"undeliverable", "suspended"}:
            self.write_status(address, ("probation", "", None), now)

    def move(self, person: str, address: str, now: datetime) -> None:
        if {person, address} & self.erased or self.address_of[person] == address:
            return
        self.left.setdefault(person, set()).add(self.address_of[person])
        self.address_of[person] = address
        for (whose, _), heap in self.wishes.items():
            if whose == person and heap and heap[-1].value == (False, "hard_bounce"):
                heap.append(Written((True, "import"), now))

    def erase(self, person: str) -> None:
        if person in self.erased:
            return
        had = {sent.address for sent in self.sent if sent.person == person} | self.left.get(person, set())
        had.add(self.address_of.pop(person))
        self.erased |= {person} | {address for address in had if not self.people_of(address)}
        self.wishes = {key: heap for key, heap in self.wishes.items() if key[0] != person}

    def reinstate(self, address: str, now: datetime) -> None:
        self.write_status(address, ("deliverable", "", None), now)
        for person, store in list(self.wishes):
            if self.address_of.get(person) == address and self.wish(person, store) == (False, "hard_bounce"):
                self.write_wish(person, store, (True, "operator"), now)

    def undo(self, said: object) -> None:
        """Take out what a report wrote, wherever it lies in its heap; what lies on it stays there."""
        if isinstance(said, Said):
            said.counts = False
        for heap in (*self.wishes.values(), *self.statuses.values()):
            heap[:] = [each for each in heap if each.by is not said]

"""Ways to kill a daemon: at a moment, in the middle of the letters, before a system call, with its relay."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import reckoning
from box import Box
from relay_process import RelayProcess

_CALLS = {
    "sqlite": {"fdatasync": 60, "pwrite64": 500, "write": 300},
    "postgresql": {"sendto": 300, "write": 300},
}
"""To commit, to write ahead, to ask the database, to say something to the relay: how many of them by one thread."""

_LONGEST_START_SECONDS = 1.5
_MOST_OCTETS = 10_000  # of the ledger: some 130 letters
_LONGEST_WAIT_SECONDS = 0.1  # between the relay's fault and the kill
_TICK_SECONDS = 0.001
_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """How a daemon was killed, and whether its relay had died before."""

    how: str
    relay_died: bool = False


class Killer:
    """Starts a daemon and kills it, each time in another way. `ways` counts them."""

    def __init__(self, box: Box, relay: RelayProcess, dice: Random) -> None:
        """Kill nobody yet."""
        self.ways: Counter[str] = Counter()
        self._box = box
        self._relay = relay
        self._dice = dice
        ways: dict[Callable[[], Kill], int] = {
            self._among_letters: 8,
            self._before_a_call: 6,
            self._at_a_moment: 3,
            self._with_its_relay: 2,
            self._after_its_relay: 2,
            self._while_its_relay_hangs: 2,
        }
        self._ways, self._weights = list(ways), list(ways.values())

    def kill(self) -> Kill:
        """Start the daemon and kill it in one of the ways.

        Once this returns the relay is there, has taken up all that was sent to it, and nothing else will come.
        """
        (way,) = self._dice.choices(self._ways, self._weights)
        kill = way()
        self.ways[way.__name__.strip("_").replace("_", " ")] += 1
        self._relay.start()
        self._relay.quiet()
        return kill

    def _among_letters(self) -> Kill:
        self._box.launch()
        octets = self._await_letters()
        self._box.kill()
        return Kill(f"after {octets} octets of the ledger")

    def _before_a_call(self) -> Kill:
        """Before the k-th call of that name by one thread, or when all is sent and there were not so many."""
        calls = _CALLS[self._box.database.url.get_backend_name()]
        name = self._dice.choice(list(calls))
        count = self._dice.randint(1, calls[name])
        inject = f"inject={name}:signal=SIGKILL:when={count}"
        self._box.launch(
            prefix=["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", inject]
        )
        if self._await(self._is_dead):
            self._box.ended()
            return Kill(f"before {name} {count}")
        self._box.kill()
        return Kill(f"with all sent, before {name} {count}")

    def _at_a_moment(self) -> Kill:
        """At any time from its first instruction to the middle of its work."""
        seconds = self._dice.uniform(0, _LONGEST_START_SECONDS)
        self._box.launch()
        time.sleep(seconds)
        self._box.kill()
        return Kill(f"after {seconds:.3f} seconds")

    def _with_its_relay(self) -> Kill:
        self._box.launch()
        octets = self._await_letters()
        self._relay.kill()
        self._box.kill()
        return Kill(f"with its relay, after {octets} octets", relay_died=True)

    def _after_its_relay(self) -> Kill:
        self._box.launch()
        octets = self._await_letters()
        self._relay.kill()
        time.sleep(self._dice.uniform(0, _LONGEST_WAIT_SECONDS))
        self._box.kill()
        return Kill(f"after its relay, after {octets} octets", relay_died=True)

    def _while_its_relay_hangs(self) -> Kill:
        self._box.launch()
        octets = self._await_letters()
        self._relay.hang()
        time.sleep(self._dice.uniform(0, _LONGEST_WAIT_SECONDS))
        self._box.kill()
        self._relay.resume()
        return Kill(f"while its relay hangs, after {octets} octets")

    def _await_letters(self) -> int:
        """Wait for some more letters in the ledger, or until all are sent, and then a moment."""
        octets = self._dice.randrange(_MOST_OCTETS)
        enough = self._relay.ledger.stat().st_size + octets
        self._await(lambda: self._relay.ledger.stat().st_size > enough)
        time.sleep(self._dice.uniform(0, 2 * _TICK_SECONDS))
        return octets

    def _is_dead(self) -> bool:
        assert self._box.process is not None
        return self._box.process.poll() is not None

    def _await(self, condition: Callable[[], bool]) -> bool:
        """Return True once `condition` holds, or False once there is nothing left to send."""
        looked = begun = time.monotonic()
        while not condition():
            time.sleep(_TICK_SECONDS)
            now = time.monotonic()
            if now - looked > _LOOK_SECONDS:
                looked = now
                if not reckoning.unsettled(self._box.database):
                    return condition()
            assert now - begun < _PATIENCE_SECONDS, self._box.log.read_text()[-5000:]
        return True

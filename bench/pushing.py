"""Ready-made letters through `mailbound.relay`, without a database; what smtp-source does, done by us.

python bench/pushing.py PORT MESSAGES CONNECTIONS SIZE       # prints the processor time it took, as JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

import uvloop

from mailbound import relay
from mailbound.model import Letter, Outcome, Result


class _Carrier:
    """Sends one letter after another through a session, each final dot with the next envelope."""

    def __init__(self, session: relay.Session, letters: Iterator[Letter]) -> None:
        self._session = session
        self._letters = letters
        self._under_way = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go_on(self) -> None:
        letter = next(self._letters, None)
        if letter is not None:
            self._under_way += 1
            self._session.begin(letter, self)
        elif not self._under_way:
            self.done.set_result(None)

    def ready(self) -> None:
        self._session.finish()
        self.go_on()

    def ended(self, outcome: Outcome) -> None:
        self._under_way -= 1
        if outcome.result is not Result.ACCEPTED:
            self.done.set_exception(RuntimeError(str(outcome)))
        elif not self._under_way and not self.done.done():
            self.go_on()


def _letters(count: int, size: int) -> Iterator[Letter]:
    head = b"From: hello@sender.test\r\nTo: person@domain.test\r\nSubject: Spring\r\n\r\n"
    line = b"It is spring, and everything in the shop is new again: come and see.\r\n"
    content = head + line * ((size - len(head)) // len(line))
    for number in range(1, count + 1):
        yield Letter(
            delivery_id=number,
            attempt=1,
            return_path=f"bounces+{number}@sender.test",
            recipient=f"person{number}@domain.test",
            envid=str(number),
            content=content,
            clean=True,
        )


async def _push(port: int, messages: int, connections: int, size: int) -> None:
    source = relay.Relay(relay.Account(host="127.0.0.1", port=port, tls="insecure"), connections=connections)
    sessions = [await source.connect() for _ in range(connections)]
    letters = _letters(messages, size)
    carriers = [_Carrier(session, letters) for session in sessions]
    for carrier in carriers:
        carrier.go_on()
    await asyncio.gather(*(carrier.done for carrier in carriers))
    for session in sessions:
        session.close()


def main(arguments: list[str]) -> None:
    """Push, and say what it took."""
    port, messages, connections, size = map(int, arguments)
    before = time.process_time()
    uvloop.run(_push(port, messages, connections, size))
    print(json.dumps({"cpu_seconds": time.process_time() - before}))


if __name__ == "__main__":
    main(sys.argv[1:])

"""The ledger relay as a process of its own, so that it can be killed, hung and started again.

`python tests/relay_process.py LEDGER SMTP_PORT POP3_PORT` runs it. It says "listening" once it does; and for each line
that it reads, "quiet" once no session is open.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, Self

from mailbound.simulator import Simulator
from mailbound.simulator.envelope import Envelope
from servers import processes

_MESSAGE_ID = re.compile(rb"^message-id:\s*<?([^>\s]+)>?", re.IGNORECASE | re.MULTILINE)


class RelayProcess:
    """The relay, which writes each message that it takes into `ledger`, durably, before it says so.

    A context manager. It keeps its ports however often it is started.
    """

    def __init__(self, ledger: Path) -> None:
        """Choose ports; nothing runs yet."""
        self.ledger = ledger
        ledger.touch()
        ports = processes.free_ports(["smtp", "pop3"])
        self._command = [sys.executable, __file__, str(ledger), str(ports["smtp"]), str(ports["pop3"])]
        self._process: subprocess.Popen[bytes] | None = None
        self.settings = {
            "outbound": f'port = {ports["smtp"]}\ntls = "insecure"',
            "inbound": f'port = {ports["pop3"]}\ntls = "insecure"',
        }

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.kill()

    def start(self) -> None:
        """Start, unless it runs, and return once it listens."""
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            self._expect(b"listening\n")

    def kill(self) -> None:
        """Kill it at once; what it wrote down it has taken."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def hang(self) -> None:
        """Let it do nothing from now on, though the kernel goes on taking what is sent to it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def quiet(self) -> None:
        """Return once all is taken up that was sent to it, by clients that are gone."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            self._expect(b"quiet\n")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _expect(self, word: bytes) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == word


async def _serve(ledger: BinaryIO, smtp_port: int, pop3_port: int) -> None:
    def write_down(envelope: Envelope) -> None:
        found = _MESSAGE_ID.search(envelope.header)
        assert found is not None
        (recipient,) = envelope.recipients
        ledger.write(b"%s %s\n" % (found[1], recipient.address.encode()))
        os.fsync(ledger.fileno())

    async with Simulator(on_accept=write_down, smtp_port=smtp_port, pop3_port=pop3_port, keep=0) as simulator:
        print("listening", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            while simulator._connections:  # noqa: ASYNC110 - it tells nobody when one ends
                await asyncio.sleep(0.001)
            print("quiet", flush=True)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("ab", buffering=0) as opened:
        asyncio.run(_serve(opened, int(sys.argv[2]), int(sys.argv[3])))

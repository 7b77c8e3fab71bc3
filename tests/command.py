"""The command line in this process: quicker than a program for each command, and the same from `main` on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from mailbound import cli


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return what it printed, as JSON."""
        return json.loads(self.out)


def run(*words: str, config: Path | None = None, stdin: bytes = b"", **environment: str) -> Done:
    """Run a command as a user would, without a terminal. A traceback fails the test."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    secrets = {"RELAY_PASSWORD": "secret", "MAILBOX_PASSWORD": "secret", "COLUMNS": "100"}
    status: object = 0
    with (
        mock.patch.dict(os.environ, {**secrets, **environment}),
        mock.patch.object(sys, "argv", ["mailbound", *(["--config", str(config)] if config else []), *words]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
    assert isinstance(status, int)
    return Done(status, *(each.buffer.getvalue().decode() for each in (out, err)))  # type: ignore[attr-defined]


def refused(*words: str, config: Path | None = None, **more: Any) -> str:
    """Run a command that ends with 2, and return the one line that it says about it."""
    done = run(*words, config=config, **more)
    assert done.status == cli.INPUT_FAULT, done
    assert done.err.startswith("mailbound: "), done
    assert done.err.count("\n") == 1, done
    return done.err.removeprefix("mailbound: ").strip()


@contextlib.contextmanager
def simulator() -> Iterator[tuple[str, str]]:
    """Run `mailbound simulate`, and give what a configuration says of its relay and of its mailbox."""
    program = [sys.executable, "-m", "mailbound.cli", "simulate", "--smtp-port", "0", "--pop3-port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            relay, pop3 = (each.rpartition(":")[2].strip() for each in running.stdout.readline().split(","))
            yield f'port = {relay}\ntls = "insecure"', f'port = {pop3}\ntls = "insecure"'
        finally:
            running.kill()

"""What the README tells a newcomer to type really works."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_first_activity_of_the_readme_works(tmp_path):
    smtp, pop3 = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    ports = {"2525": str(smtp.getsockname()[1]), "2110": str(pop3.getsockname()[1])}
    smtp.close(), pop3.close()
    settings = (ROOT / "config.toml").read_text().replace('poll = "60s"', 'poll = "1s"')
    (tmp_path / "config.toml").write_text(re.sub("2525|2110", lambda match: ports[match[0]], settings))
    program = tmp_path / ".venv" / "bin" / "mailbound"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mailbound.cli "$@"\n')
    program.chmod(0o755)
    part = re.search(
        r"^## A first activity\n(.*?)^## ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    first, then = re.findall(r"^```sh\n(.*?)^```", part[1], re.MULTILINE | re.DOTALL)
    listening = f"--smtp-port {ports['2525']} --pop3-port {ports['2110']} > simulator.log"
    first = first.replace("mailbound simulate", f"mailbound simulate {listening}")
    come = "until mailbound bounce list --mail | grep -q bounce; do :; done"
    script = f"{first}\n{come}\n{then}\nkill %1 %2\nwait\n"
    environment = {name: value for name, value in os.environ.items() if name != "MAILBOUND_CONFIG"}
    environment["PYTHONPATH"] = str(ROOT / "daemon")
    with subprocess.Popen(
        ["bash", "-eu", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            output, _ = run.communicate(timeout=90)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
    assert "bounce@example.com (Ben)" in output
    assert "undeliverable" in output
    assert re.search(r"skipped +1 ", output), output

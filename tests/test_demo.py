"""The demo plays the whole job with the real programs, and ends well."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import command

PATIENCE_SECONDS = 240


def test_the_demo_sends_learns_and_never_mails_the_dead_again(tmp_path):
    folder = tmp_path / "a demo"
    words = [sys.executable, "-m", "mailbound.cli", "demo", "--folder", str(folder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAILBOUND")}
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment, timeout=PATIENCE_SECONDS, check=False
    )
    assert (done.returncode, done.stderr.replace("\n", "")[:9]) in {(0, ""), (0, "line 102:")}, done
    assert "2,000 read, 1,995 new, 5 faulty, 1,975 opted in, 20 opted out" in done.stdout
    spring, summer = re.findall(r"^audience +([\d,]+)", done.stdout, re.MULTILINE)
    assert (spring, summer) == ("1,995", "1,995")
    assert re.search(r"^  undeliverable +[1-9]", done.stdout, re.MULTILINE), "summer leaves out the dead"
    assert re.search(
        r"^No: \d+ addresses are known to be dead, and not one message", done.stdout, re.MULTILINE
    )
    assert f"export MAILBOUND_CONFIG='{folder}/config.toml'" in done.stdout
    listed = command.run("activity", "list", "--json", config=folder / "config.toml").json
    assert {each["name"]: each["state"] for each in listed} == {"spring": "sent", "summer": "sent"}


def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path):
    (tmp_path / "mine").touch()
    assert "holds something else" in command.refused("demo", "--folder", str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]

"""The unit is sound by systemd's own judgement, and says why it is as it is."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from servers import need

FOLDER = Path(__file__).parents[1] / "systemd"
UNIT = (FOLDER / "mailbound.service").read_text()
DROP_INS = sorted((FOLDER / "drop-ins").glob("*.conf"))
FINAL_DOT_SECONDS = 600  # RFC 5321 §4.5.3.2.6


@pytest.fixture
def installed(tmp_path):
    """Return the unit as if its program were installed."""
    unit = tmp_path / "mailbound.service"
    unit.write_text(UNIT.replace("/opt/mailbound/bin/mailbound", "/usr/bin/true"))
    return unit


def settings(text: str) -> dict[str, list[str]]:
    """Return the values of each setting of a unit, in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def verify(unit: Path) -> str:
    """Return what `systemd-analyze verify` has against a unit: "" if nothing."""
    command = [need("systemd-analyze"), "verify", "--man=no", unit]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


def exposure(unit: Path) -> float:
    """Return the exposure of a unit, from 0 (none) to 10."""
    command = [need("systemd-analyze"), "security", "--offline=true", "--no-pager", unit]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout.rpartition("exposure level for mailbound.service:")[2].split()[0])


def test_systemd_has_nothing_against_the_unit(installed):
    assert verify(installed) == ""


def test_systemd_would_have_something_against_a_wrong_unit(installed):
    installed.write_text(installed.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in verify(installed)


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_systemd_has_nothing_against_a_drop_in(installed, drop_in):
    folder = installed.with_name("mailbound.service.d")
    folder.mkdir()
    (folder / drop_in.name).write_text(drop_in.read_text())
    assert verify(installed) == ""


def test_the_unit_exposes_as_little_as_a_mail_daemon_can(installed):
    assert exposure(installed) <= 1.2


def test_the_network_drop_in_exposes_still_less(installed):
    # An offline analysis reads no drop-ins, so the setting stands in the unit itself.
    drop_in = (FOLDER / "drop-ins/network.conf").read_text()
    installed.write_text(UNIT.replace("[Install]", drop_in.partition("[Service]")[2] + "[Install]"))
    assert exposure(installed) <= 1.1


def test_every_setting_that_confines_has_its_reason_above_it():
    confinement = UNIT.partition("# --- Bounds")[2].partition("[Install]")[0].splitlines()
    unexplained = [
        line
        for above, line in itertools.pairwise(confinement)
        if line and not line.startswith("#") and (not above or above.startswith("# ---"))
    ]
    assert unexplained == []


def test_stopping_outlasts_the_longest_wait_for_a_final_dot():
    (minutes,) = settings(UNIT)["TimeoutStopSec"]
    assert int(minutes.removesuffix("min")) * 60 > FINAL_DOT_SECONDS


def test_the_unit_is_told_how_the_daemon_lives():
    unit = settings(UNIT)
    assert unit["Type"] == ["notify"]
    assert unit["NotifyAccess"] == ["main"]
    assert unit["RestartPreventExitStatus"] == ["78"]
    assert unit["LogRateLimitIntervalSec"] == ["0"]


def test_the_commands_of_the_unit_are_those_of_the_program():
    unit = settings(UNIT)
    commands = [shlex.split(line) for line in unit["ExecStart"] + unit["ExecReload"]]
    ours = [words for program, *words in commands if program == "/opt/mailbound/bin/mailbound"]
    assert [words[2:4] for words in ours] == [["run"], ["config", "check"]]
    for words in ours:
        command = [sys.executable, "-m", "mailbound.cli", *words, "--help"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (0, "")


def test_no_secret_passes_by_the_environment():
    for path in [FOLDER / "mailbound.service", *DROP_INS]:
        assert not {"Environment", "EnvironmentFile", "PassEnvironment"} & settings(path.read_text()).keys()


def test_the_credentials_of_the_unit_are_those_that_the_sample_configuration_names():
    sample = (FOLDER.parent / "config.toml").read_text()
    for credential in settings(UNIT)["LoadCredential"]:
        assert f'password_credential = "{credential.partition(":")[0]}"' in sample

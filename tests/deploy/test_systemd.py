"""The units of deploy/systemd: systemd takes them, they confine what they run, and they start commands of ours."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from relier.settings import Settings
from tests.deploy.commands import resolve
from tests.deploy.shipped import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))

#: How exposed (0 to 10) a unit may be by systemd's own reckoning. An ordinary service without a word has 9.6.
EXPOSED = 2.0


def read(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser["Service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_command_of_ours_and_leaves_it_time_to_drain(unit: Path) -> None:
    service = read(unit)
    name = resolve(shlex.split(service["ExecStart"]))
    assert name == {"relier-worker": "worker start", "relier-resurrector": "run-resurrector"}.get(unit.stem, "metrics")
    timeout = Settings.model_fields["graceful_shutdown_timeout"].default
    assert name == "metrics" or float(service["TimeoutStopSec"]) > timeout + 10
    assert (service["User"], service["KillMode"], service["Restart"]) == ("relier", "mixed", "always")
    assert not [line for line in unit.read_text().splitlines() if "PASSWORD" in line and not line.startswith("#")]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_a_unit_and_finds_it_confined(unit: Path, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:  # Then the other test is all that can be said here.
        return
    root = tmp_path / "root"
    for folder in ("etc/systemd/system", "opt/relier/bin", "srv/app"):
        (root / folder).mkdir(parents=True)
    shutil.copy(unit, root / "etc/systemd/system")
    command = root / "opt/relier/bin/rl"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    verified = _run(tool, "verify", "--man=no", "--recursive-errors=no", f"--root={root}", unit.name)
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, complaints) == (0, []), verified.stderr
    security = (
        "security",
        "--offline=yes",
        f"--threshold={EXPOSED * 10:.0f}",
        "--no-pager",
        f"--root={root}",
        unit.name,
    )
    judged = _run(tool, *security)
    assert judged.returncode == 0, judged.stdout[-1500:] + judged.stderr


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

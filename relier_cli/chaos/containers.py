"""Takes the container of a Redis away for a while, by the `docker` command: its network, or all that runs in it.

A process of its own does it, and puts everything back when the time is over or when the command that started it ends,
however that ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relier_cli.chaos import putting_back
from relier_cli.chaos.stage import refuse

#: Longest time (s) that a `docker` command may take.
PATIENCE = 60.0


class By(StrEnum):
    """How a container is taken away."""

    DISCONNECT = "disconnect"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Plan:
    """The commands that take a container away, and those that put it back."""

    away: list[list[str]]
    back: list[list[str]]


def plan(container: str, by: By) -> Plan:
    """Return what is to be done. Refuses when there is no docker, no such container, or nothing to disconnect."""
    if shutil.which("docker") is None:
        refuse("There is no docker command here: it is what reaches a container.")
    about = _inspect(container)
    state = about.get("State") or {}
    if not state.get("Running") or state.get("Paused"):
        refuse(f"Container {container!r} does not run, or is paused already.")
    if by is By.PAUSE:
        return Plan([["docker", "pause", container]], [["docker", "unpause", container]])
    networks = (about.get("NetworkSettings") or {}).get("Networks") or {}
    mine = {name: told or {} for name, told in networks.items() if name not in ("host", "none")}
    if not mine:
        refuse(f"Container {container!r} is in no network that it could be disconnected from: use --by pause.")
    short = str(about.get("Id", ""))[:12]
    return Plan(
        [["docker", "network", "disconnect", name, container] for name in mine],
        [_connect(name, told, container, short) for name, told in mine.items()],
    )


def _connect(network: str, told: dict[str, Any], container: str, short: str) -> list[str]:
    """Return the command that puts a container back into a network as it was: names and fixed addresses.

    Its short id is an alias that Docker adds by itself.
    """
    words = ["docker", "network", "connect"]
    for alias in told.get("Aliases") or ():
        words += ["--alias", alias] if alias != short else []
    fixed = told.get("IPAMConfig") or {}
    words += ["--ip", fixed["IPv4Address"]] if fixed.get("IPv4Address") else []
    words += ["--ip6", fixed["IPv6Address"]] if fixed.get("IPv6Address") else []
    for link in told.get("Links") or ():
        words += ["--link", link]
    for name, value in (told.get("DriverOpts") or {}).items():
        words += ["--driver-opt", f"{name}={value}"]
    return [*words, network, container]


def _inspect(container: str) -> dict[str, Any]:
    command = ["docker", "inspect", "--type", "container", container]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        found = json.loads(done.stdout) if done.returncode == 0 else []
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        refuse(f"docker inspect failed: {type(error).__name__}.")
    if not found:
        refuse(f"docker knows no container {container!r}: {' '.join(done.stderr.split()) or 'it says nothing'}.")
    about: dict[str, Any] = found[0]
    return about


class Away:
    """The process that has taken a container away, and will put it back."""

    def __init__(self, plan: Plan, seconds: float) -> None:
        order = json.dumps({"away": plan.away, "back": plan.back, "seconds": seconds})
        self._process = subprocess.Popen(
            [sys.executable, "-m", putting_back.__name__, order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is not for it.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self.said: list[str] = []

    def listen(self) -> str:
        """Return what it says next: away, back, or what failed; '' when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        self.said.append(line)
        return line

    def end(self) -> str:
        """Put the container back now, if it is not; returns what was said last."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        while self.listen():
            pass
        self._process.wait(PATIENCE)
        return next((line for line in reversed(self.said) if line), "")


def commands(plan: Plan) -> Sequence[str]:
    """Return the commands as somebody would type them."""
    return [" ".join(words) for words in (*plan.away, *plan.back)]

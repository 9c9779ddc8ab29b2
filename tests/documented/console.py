"""Runs the lines of a shell block one after the other, as a reader would."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relier.store import Store
from tests import processes
from tests.documented.pages import Block
from tests.waiting import wait_until

#: Commands whose exit code 1 is an answer.
ANSWERS_NO = ("rl doctor", "rl audit", "rl config validate", "rl config check-deploy", "rl slo status")
#: What shows that a command is at work which runs until it is stopped.
UNTIL_STOPPED = {
    "dramatiq ": "ready for action",
    "rl worker start": "ready for action",
    "rl run-resurrector": "resurrection lease",
    "rl metrics": "http://",
    "rl ui": "http://",
}
_ENDS = re.compile(r" --(once|json|help)\b")

_WORKER = re.compile(r"\b(?:vm|web-\d+|worker-\d+):\d+(?::[0-9a-f]+)?\b")
_HEADINGS = re.compile(r"^[A-Z][A-Z()_/% 0-9]*(?: {2,}[A-Z][A-Z()_/% 0-9]*)+$")
_LABEL = re.compile(r"^(?:(?:ok|warning|error) +)?([a-z][a-z ]+):(?: |$)")

#: Words that only a shell understands.
_SHELL = re.compile(r"[|&;<>$`]|^[A-Z_]+=")
_EXPORT = re.compile(r"export (RELIER_\w+)=(.*)")


@dataclass(frozen=True)
class Line:
    """A command of a block, and what it is shown to print."""

    command: str
    output: tuple[str, ...] = ()


def lines_of(block: Block) -> Iterator[Line]:
    """Yield the commands of a block; in `console` they follow a `$`, and output is shown between them."""
    code = block.code.replace("\\\n", " ")
    if block.language != "console":
        yield from (Line(line) for line in code.splitlines() if line.strip() and not line.startswith("#"))
        return
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, *output = part.splitlines()
        yield Line(command, tuple(output))


@dataclass
class Console:
    """A shell in a folder.

    Parameters:
      replaced: texts of the pages, and what stands for them here (addresses of servers).
    """

    folder: Path
    store: Store
    variables: dict[str, str | None]
    replaced: dict[str, str] = field(default_factory=dict)

    def run(self, line: Line) -> None:
        """Run one line; fails when it does, or when it does not print what the page shows."""
        command = self._here(line.command)
        if exported := _EXPORT.match(command):
            self._export(exported[1], exported[2])
            return
        sign = next((sign for start, sign in UNTIL_STOPPED.items() if command.startswith(start)), "")
        if sign and not _ENDS.search(command):
            self._run_until(sign, command)
            return
        done = self._run_in_shell(command) if _SHELL.search(command) else self._run_alone(command)
        allowed = (0, 1) if command.startswith(ANSWERS_NO) else (0,)
        assert done.returncode in allowed, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback (most recent call last)" not in done.stderr, f"{command}: {done.stderr}"
        lacking = [label for label in labels(line.output) if label not in done.stdout]
        assert not lacking, f"{command} does not print {lacking}, but:\n{done.stdout}"

    def _export(self, name: str, value: str) -> None:
        done = subprocess.run(["bash", "-e", "-c", f"printf %s {value}"], **_CAPTURED, check=True)
        self.variables[name.removeprefix("RELIER_").lower()] = done.stdout

    def _here(self, command: str) -> str:
        for text, here in self.replaced.items():
            command = command.replace(text, here)
        named = list(dict.fromkeys(_WORKER.findall(command)))
        living = [w for w, told in self.store.fleet.workers().items() if told.get("role") == "worker"] if named else []
        for name, worker in zip(named, living, strict=False):
            command = command.replace(name, worker)
        return command

    def _run_alone(self, command: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(command, comments=True)
        if words[0] == "rl":
            return processes.rl(self.folder, *words[1:], **self.variables)
        assert words[0] in ("python", "dramatiq"), f"Nobody knows how to run {command!r} here."
        script = words[1:] if words[0] == "python" else ["-m", "dramatiq", *words[1:]]
        return subprocess.run(
            [sys.executable, *script], cwd=self.folder, env=self._environment(), **_CAPTURED, check=False
        )

    def _run_in_shell(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            cwd=self.folder,
            env=self._environment(),
            **_CAPTURED,
            check=False,
        )

    def _run_until(self, sign: str, command: str) -> None:
        words = shlex.split(command, comments=True)
        module = {"rl": "relier_cli.app", "dramatiq": "dramatiq"}[words[0]]
        with processes.Started(self.folder, module, *words[1:], **self.variables) as started:
            wait_until(
                lambda: sign in started.output or started.process.poll() is not None, 60, f"{sign!r} of {command}"
            )
            assert started.process.poll() is None, started.output
            assert started.terminate() == 0, started.output

    def _environment(self) -> dict[str, str]:
        """Put our own commands first on PATH: they run what is tested, not what else may be installed."""
        programs = self.folder / ".programs"
        if not programs.exists():
            programs.mkdir()
            for name, module in (("rl", "-m relier_cli.app"), ("dramatiq", "-m dramatiq"), ("python", "")):
                path = programs / name
                path.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
                path.chmod(path.stat().st_mode | stat.S_IXUSR)
        environ = processes.environment(**self.variables)
        return {**environ, "PATH": f"{programs}{os.pathsep}{environ['PATH']}"}


_CAPTURED: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "capture_output": True,
    "text": True,
    "timeout": processes.PATIENCE,
}


def labels(output: tuple[str, ...]) -> list[str]:
    """Return the headings of columns and the names of fields in an output that a page shows."""
    found: list[str] = []
    for line in output:
        if _HEADINGS.match(line):
            found += re.split(r" {2,}", line)
        elif label := _LABEL.match(line):
            found.append(label[1] + ":")
    return found

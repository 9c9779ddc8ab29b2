"""Which commands of `rl` each role may use, on a Redis that was started with the files of redis/."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from relier.settings import Settings
from relier.store import Store
from tests import processes, schemas, spawn
from tests.cli.conftest import CommandLine, Tasks
from tests.cli.populated import Populated
from tests.cli.usage import ELSEWHERE, WITHOUT_STORE, calls
from tests.deploy.shipped import ShippedRedis, password

#: Commands that only an operator may use, besides `worker drain` and `worker restart`.
OPERATORS = {
    "queue pause", "queue resume", "queue purge", "dlq release", "dlq retry-all", "dlq import", "dlq purge",
    "tasks retry", "admin reset", "admin reset-admission", "admin purge-locks",
}  # fmt: skip
#: What producers and workers may do, too: a receipt's `cancel` does.
CANCEL = {"tasks cancel"}
#: Commands that start something, or are no question to the store.
OTHERS = WITHOUT_STORE | set(ELSEWHERE) | {"worker start", "run-resurrector", "bench", "ui", "config set"}

COMMANDS = set(schemas.commands())
READING = {name for name in COMMANDS - OPERATORS - CANCEL - OTHERS if not name.startswith("chaos ")}

REFUSED = "does not let its user"

#: Runs several command lines in one process, and prints of each: exit code, output, errors.
_RUN = """
import contextlib, io, json, sys
from relier_cli.app import main
for line in json.loads(sys.argv[1]):
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["rl", *line]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([line, code, out.getvalue(), err.getvalue()]))
"""


@dataclass(frozen=True)
class Done:
    """One command that has ended."""

    line: list[str]
    code: int
    out: str
    err: str


@dataclass
class Commands:
    """The command lines of a store with a task in each state, made by the administrator."""

    shipped: ShippedRedis
    populated: Populated

    @cached_property
    def _all(self) -> dict[str, list[str]]:
        """What is refused changes nothing: the same lines may be tried by several users."""
        names = sorted(OPERATORS | CANCEL)
        return dict(zip(names, self.lines(names), strict=True))

    def lines(self, commands: Iterable[str]) -> list[list[str]]:
        """Return a line for each command, one that does something where there is one."""
        chosen = [next(c for c in calls(name) if "--dry-run" not in c) for name in sorted(commands)]
        return [self.populated.line(line) for line in chosen]

    def run(self, user: str, lines: list[list[str]]) -> list[Done]:
        """Run command lines with the credentials of a user; nothing may show its password."""
        command = [sys.executable, "-c", _RUN, json.dumps(lines)]
        variables = processes.environment(**self.shipped.variables_of(user))
        ended = spawn.run(command, cwd=self.populated.rl.folder, env=variables, timeout=processes.PATIENCE)
        assert ended.returncode == 0, ended.stderr
        assert password(user) not in ended.stdout + ended.stderr
        return [Done(*json.loads(line)) for line in ended.stdout.splitlines()]

    def refuse(self, user: str, commands: set[str]) -> None:
        """See that a user may use none of these commands: each ends with one line that says so, and changes nothing."""
        lines = [line for name, line in self._all.items() if name in commands]
        with closing(Store.from_settings(Settings(**self.shipped.settings))) as store:
            seen = store.live(), store.counters(), store.fleet.holds()
            for done in self.run(user, lines):
                assert done.code == 1, done
                assert f"{REFUSED} {user!r}" in done.err, done
                assert len(done.err.strip().splitlines()) == 1, done
            assert (store.live(), store.counters(), store.fleet.holds()) == seen


@pytest.fixture
def commands(shipped: ShippedRedis, tmp_path: Path) -> Iterator[Commands]:
    with closing(Store.from_settings(Settings(**shipped.settings))) as store:
        yield Commands(
            shipped, Populated(CommandLine(tmp_path, shipped.url, shipped.variables_of("admin")), Tasks(store))
        )


def test_a_viewer_may_use_every_command_that_only_reads(shipped: ShippedRedis, commands: Commands) -> None:
    lines = commands.lines(READING)
    shipped.refused()
    for done in commands.run("viewer", lines):
        assert REFUSED not in done.out + done.err and "Traceback" not in done.err, done
        assert done.out, done
    assert shipped.refused() == []


def test_a_resurrector_may_serve_the_metrics(shipped: ShippedRedis, commands: Commands) -> None:
    shipped.refused()
    (done,) = commands.run("resurrector", commands.lines({"metrics"}))
    assert (done.code, "relier_up 1" in done.out) == (0, True), done
    assert shipped.refused() == []


def test_a_viewer_and_a_worker_may_use_no_command_of_the_operators(commands: Commands) -> None:
    commands.refuse("viewer", OPERATORS | CANCEL)
    commands.refuse("worker", OPERATORS)


@pytest.mark.slow
def test_a_producer_may_use_no_command_of_the_operators(commands: Commands) -> None:
    commands.refuse("producer", OPERATORS)


def test_an_operator_may_use_every_command(shipped: ShippedRedis, commands: Commands) -> None:
    last = {"admin reset"}
    some = {"doctor", "queue list", "tasks inspect"}  # What a viewer may, an operator may by the same rights.
    lines = commands.lines(some | CANCEL | OPERATORS - last) + commands.lines(last)
    shipped.refused()
    for done in commands.run("operator", lines):
        assert REFUSED not in done.out + done.err, done
        assert done.out, done
    assert shipped.refused() == []

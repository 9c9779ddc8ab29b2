"""`rl config check-deploy`: what a person reads, and the exit code that a pipeline goes by."""

from __future__ import annotations

import pytest

from tests.cli.conftest import CommandLine, Tasks

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

CODE = """
from relier import SchemaRegistry, rl_actor

@rl_actor(schema_version=2)
def work(*, number): ...

@SchemaRegistry.register_migration("work", from_version=1)
def work_from_1(number): return {"number": number}

@SchemaRegistry.register_migration("other", from_version=1)
def other_from_1(): return {}
"""


def test_what_waits_and_its_path_are_shown(rl: CommandLine, tasks: Tasks) -> None:
    (rl.folder / "release.py").write_text(CODE, encoding="utf-8")
    (rl.folder / "newer.py").write_text(CODE.replace("=2", "=4"), encoding="utf-8")
    tasks.scheduled()
    tasks.scheduled(payload_version=2)
    tasks.dead()

    done = rl("config", "check-deploy", "release")
    assert done.returncode == 0, done.stderr
    assert [line.split(maxsplit=8) for line in done.stdout.splitlines()[1:3]] == [
        ["work", "1", "default", "0", "1", "0", "1", "0", "migrated to 2"],
        ["work", "2", "default", "0", "1", "0", "0", "0", "as it is"],
    ]
    assert done.stdout.splitlines()[3:] == [
        "warning: the migration of 'other' from version 1 can never run: no actor of this name is declared.",
        "Everything has a path to this code.",
    ]

    done = rl("config", "check-deploy", actors="newer")
    assert done.returncode == 1
    assert "no path: 'work' version 1: no migration from version 2 to 3." in done.stdout
    assert done.stdout.splitlines()[-1] == "2 kinds of work without a path to this code."


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ((), "No actors: name the modules of the new code, as arguments or in RELIER_ACTORS.\n"),
        (
            ("nowhere",),
            "The actor module 'nowhere' cannot be imported: ModuleNotFoundError: No module named 'nowhere'\n",
        ),
    ],
)
def test_code_that_cannot_be_looked_at_fails_in_one_line(rl: CommandLine, modules: tuple[str, ...], said: str) -> None:
    done = rl("config", "check-deploy", *modules)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)

"""What `rl … --json` prints must be what its published schema says: checked wherever a test runs such a command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer
from jsonschema import Draft202012Validator

from relier_cli.app import app

FOLDER = Path(__file__).resolve().parent.parent / "relier_cli" / "schemas"


@cache
def commands() -> dict[str, Any]:
    """Return every command by its name, such as `tasks list`."""
    return dict(_commands(typer.main.get_command(app), ()))


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def has_json(name: str) -> bool:
    return any("--json" in parameter.opts for parameter in commands()[name].params)


def path_of(name: str) -> Path:
    """Return where the schema of a command is."""
    return FOLDER / f"{name.replace(' ', '-')}.json"


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(path_of(name).read_text(encoding="utf-8")))


def check(name: str, data: Any) -> None:
    """Fail when this is not what the command may print."""
    errors = [f"{error.json_path}: {error.message}" for error in _validator(name).iter_errors(data)]
    assert not errors, f"rl {name} --json printed what {path_of(name).name} does not allow: {errors}"


def check_output(arguments: Sequence[str], printed: str) -> None:
    """Check what a command line printed, if it asked for JSON of a command that has a schema, and printed some."""
    found = [name for name in commands() if name.split() == [*arguments[: len(name.split())]]]
    if not found or "--json" not in arguments or not printed.strip() or not path_of(found[0]).exists():
        return
    check(found[0], json.loads(printed))

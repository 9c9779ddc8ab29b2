"""Command lines of `rl` in files for containers and services: parsed as `rl` does, not run."""

from __future__ import annotations

from collections.abc import Sequence

from relier_cli.worker import check_flags
from tests import schemas


def resolve(line: Sequence[str]) -> str:
    """Return the command of a line such as `rl worker start --processes 2`. Raises when `rl` would not take it."""
    program, *words = line
    assert program.rpartition("/")[2] == "rl", line
    known = schemas.commands()
    name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    arguments = words[len(name.split()) :]
    known[name].make_context(name, list(arguments))
    if "--" in arguments:
        check_flags(arguments[arguments.index("--") + 1 :])
    return name

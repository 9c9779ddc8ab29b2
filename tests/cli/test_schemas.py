"""Each command with `--json` has a published schema, and prints what that says.

Beside the runs here, `tests.processes.rl` checks the JSON of every command that any test runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests import schemas
from tests.cli.conftest import CommandLine, Tasks
from tests.cli.populated import Populated
from tests.cli.usage import ELSEWHERE, calls

ROOT = Path(__file__).resolve().parents[2]
WITH_JSON = [name for name in schemas.commands() if schemas.has_json(name)]
PUBLISHED = sorted(schemas.FOLDER.glob("*.json"))
#: Of the lines of a file that a command writes.
OF_FILES = {"dlq-export-line"}


@pytest.mark.parametrize("command", WITH_JSON)
def test_each_command_with_json_has_a_schema(command: str) -> None:
    path = schemas.path_of(command)
    assert path.exists(), f"Write {path.relative_to(ROOT)}: what `rl {command} --json` prints (JSON Schema, 2020-12)."


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_each_schema_is_one_of_a_command_and_says_what_is_allowed(path: Path) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert path.stem in {name.replace(" ", "-") for name in WITH_JSON} | OF_FILES
    assert not Draft202012Validator(schema).is_valid("no such output")
    assert not Draft202012Validator(schema).is_valid({"no_such": "field"})


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
@pytest.mark.parametrize("command", [name for name in WITH_JSON if name not in ELSEWHERE])
def test_what_a_command_prints_is_what_its_schema_says(command: str, rl: CommandLine, tasks: Tasks) -> None:
    populated = Populated(rl, tasks)
    for words in calls(command):
        line = populated.line(words)
        done = rl(*line, "--json")
        assert done.stdout, f"rl {' '.join(line)} --json printed nothing: {done.stderr}"
        schemas.check(command, json.loads(done.stdout))


@pytest.mark.parametrize(("command", "where"), ELSEWHERE.items())
def test_what_needs_more_than_a_store_is_run_elsewhere(command: str, where: str) -> None:
    text = (ROOT / where).read_text(encoding="utf-8")
    assert "json" in text
    assert all(f'"{word}"' in text for word in command.split()[1:])


def test_json_that_a_schema_does_not_allow_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"limits: -1 is less than the minimum"):
        schemas.check_output(["admin", "reset-admission", "--yes", "--json"], '{"limits": -1}')
    schemas.check_output(["admin", "reset-admission", "--yes"], "3 limits begin anew.")

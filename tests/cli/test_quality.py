"""What every command of `rl` keeps to: help with an example, exit codes, no traceback, no colours where none belong."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from relier_cli.app import main
from relier_cli.examples import QUESTIONS
from tests import processes, schemas, spawn
from tests.cli.conftest import CommandLine, Tasks
from tests.cli.populated import Populated
from tests.cli.usage import CALLS, ELSEWHERE, TAKE_ANY, UNKNOWN, VARIABLES, WITHOUT_STORE, calls
from tests.processes import PATIENCE

COMMANDS = sorted(schemas.commands())
ON_A_STORE = [name for name in COMMANDS if name not in ELSEWHERE and name not in ("worker start", "run-resurrector")]
#: Begins what moves the cursor or colours a text.
ESCAPE = "\x1b"


def test_every_command_that_takes_a_name_is_tried_with_an_unknown_one() -> None:
    required = {name for name in COMMANDS for p in schemas.commands()[name].params if p.required}
    untried = {name for name in required if not UNKNOWN.get(name)}
    assert untried <= TAKE_ANY, "add them to UNKNOWN in tests/cli/usage.py"


class Typed:
    """Types command lines that end before they do anything; within this process, as there are many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *line: str) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        self._monkeypatch.setattr(sys, "argv", ["rl", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *self._capsys.readouterr()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(monkeypatch, capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_no_colours(command: str, typed: Typed) -> None:
    code, out, _ = typed(*command.split(), "--help")
    assert code == 0
    assert f"Example: rl {command}" in out
    assert ESCAPE not in out


GROUPS = sorted({name.partition(" ")[0] for name in COMMANDS if " " in name})


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_the_help_of_a_group_tells_which_command_answers_which_question(group: str, typed: Typed) -> None:
    assert QUESTIONS.get(group), f"add what people ask of rl {group} to relier_cli/examples.py"
    code, out, _ = typed(*group.split(), "--help")
    assert code == 0
    assert "Example: rl " in out
    for question, answers in QUESTIONS[group].items():
        assert re.search(rf"^ *{re.escape(question)}  +{re.escape(answers)}$", out, re.MULTILINE), out
        for answer in answers.split("; "):
            words = answer.partition(" -- ")[0].split()[1:]
            named = [name for name in COMMANDS if words[: len(name.split())] == name.split()]
            assert len(named) == 1, answer
            options = {option for parameter in schemas.commands()[named[0]].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options, answer


@pytest.mark.parametrize("command", COMMANDS)
def test_misuse_exits_2_with_a_hint(command: str, typed: Typed) -> None:
    wrong = [[*command.split(), "--no-such-option"]]
    if any(p.required for p in schemas.commands()[command].params):
        wrong.append(command.split())
    for line in wrong:
        code, out, told = typed(*line)
        assert (code, out) == (2, ""), told
        assert "Traceback" not in told
        assert "--help" in told


@pytest.mark.parametrize("address", ["nonsense", "host:99999", "host:", ""])
def test_an_address_for_metrics_that_is_none_is_misuse(address: str, typed: Typed) -> None:
    for more in ((), ("--once",)):
        code, out, err = typed("metrics", "--addr", address, *more)
        assert (code, out) == (2, "")
        assert f"The metrics address {address!r} is none" in " ".join(err.split())


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in WITHOUT_STORE])
def test_a_redis_that_is_away_exits_1_and_shows_neither_traceback_nor_password(
    command: str, rl: CommandLine, tasks: Tasks
) -> None:
    line = Populated(rl, tasks).line(calls(command)[0]) + ["some-worker"] * (command in ELSEWHERE.keys() - CALLS.keys())
    done = rl(*line, redis_url="redis://:s3cr3t@127.0.0.1:1/0", **VARIABLES.get(command.partition(" ")[0], {}))
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert "redis://:***@127.0.0.1:1/0" in told
    assert "s3cr3t" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
@pytest.mark.parametrize(("command", "name"), UNKNOWN.items())
def test_what_is_not_there_exits_1_in_few_words(command: str, name: str, rl: CommandLine) -> None:
    done = rl(*command.split(), name)
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert "Traceback" not in told
    assert name in told
    assert len(told.splitlines()) <= 5


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
@pytest.mark.parametrize("command", ON_A_STORE)
def test_what_goes_into_a_pipe_or_to_who_wants_no_colours_has_none(
    command: str, rl: CommandLine, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    populated = Populated(rl, tasks)
    for words in calls(command):
        done = rl(*populated.line(words))
        assert ESCAPE not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    line = populated.line(calls(command)[0])
    assert ESCAPE not in on_terminal(rl, line, NO_COLOR="1", TERM="xterm-256color")


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [(">/dev/full", 1, "The output cannot be written: No space left on device.\n"), (">&-", 0, "")],
)
def test_output_that_nobody_can_take_costs_no_traceback(redirection: str, code: int, told: str) -> None:
    """On a disk that is full; and started without a standard output, as cron jobs may be."""
    command = f"{sys.executable} -m relier_cli config show {redirection}"
    line = ["sh", "-c", command]
    done = subprocess.run(
        line, check=False, env=processes.environment(), stderr=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (code, told)


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_a_terminal_gets_colours(rl: CommandLine, tasks: Tasks) -> None:
    """So the test above would notice some."""
    assert ESCAPE in on_terminal(rl, ["doctor"], TERM="xterm-256color")
    populated = Populated(rl, tasks)
    shown = on_terminal(rl, populated.line(["dlq", "list"]), TERM="xterm-256color")
    assert ESCAPE in shown
    assert populated.names["dead"] in re.sub(r"\s", "", shown)


def on_terminal(rl: CommandLine, line: list[str], **variables: str) -> str:
    """Run a command whose output goes to a terminal, a wide one; returns all that it got."""
    ours, theirs = os.openpty()
    kept = {name: value for name, value in processes.environment(redis_url=rl.url).items() if name != "NO_COLOR"}
    with os.fdopen(theirs, "wb") as terminal:
        process = spawn.start(
            [sys.executable, "-m", "relier_cli.app", *line],
            env={**kept, "COLUMNS": "300", **variables},
            cwd=rl.folder,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
    shown = b""
    while True:  # Until the other end is closed.
        try:
            read = os.read(ours, 65_536)
        except OSError:
            break
        if not read:
            break
        shown += read
    os.close(ours)
    process.wait(PATIENCE)
    return shown.decode()

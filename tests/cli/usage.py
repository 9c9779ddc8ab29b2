"""How each command is called: the one table that a new command needs a line in, unless it can be called as it is.

Words in braces stand for what the populated store has: see `tests.cli.populated`.
"""

from __future__ import annotations

#: Arguments that make a command do something there. The first line of each is also used without a store.
CALLS: dict[str, list[str]] = {
    "tasks list": ["", "--state due", "--limit 1", "--queue default --actor work --since 1d"],
    "tasks inspect": ["{dead}", "{scheduled}", "{running}", "{discarded}", "{refused}"],
    "tasks cancel": ["{scheduled}", "{running}", "{discarded}", "no-such-task"],
    "tasks retry": ["{dead}", "{scheduled}", "{running}", "no-such-task"],
    "queue pause": ["default --reason maintenance"],
    "queue resume": ["{paused_queue}"],
    "queue purge": ["default --dry-run", "--actor work --yes", "--all --older-than 1d --yes"],
    "dlq list": ["", "--limit 1", "--reason KeyError"],
    "dlq inspect": ["{dead}", "{refused}"],
    "dlq release": ["{dead}", "{dead} {refused}"],
    "dlq retry-all": ["--dry-run", "", "--actor work --limit 1"],
    "dlq export": ["--output {new_file}"],
    "dlq import": ["{letters_file}", "--dry-run {letters_file}"],
    "dlq purge": ["--all --dry-run", "--all --yes"],
    "slo status": ["", "--check"],
    "slo report": ["", "--days 1"],
    "top": ["--once"],
    "ui": ["--addr 127.0.0.1:0"],
    "admin reset": ["--force --yes"],
    "admin reset-admission": ["--yes"],
    "admin purge-locks": ["--yes", "--completed --yes"],
    "config check-deploy": ["some_actors"],
    "chaos worker-kill": ["--yes"],
    "config show": ["", "--origin"],
    "config set": ["HEARTBEAT_TTL 20", "HEARTBEAT_TTL --unset"],
    "chaos network-partition": ["--yes"],
    "metrics": ["--once"],
    "chaos load-spike": ["--yes"],
    "chaos task-corrupt": [""],
    "chaos slow-task": [""],
    "chaos verify": [""],
}

#: Settings that a group's commands need, by the group.
VARIABLES = {"chaos": {"chaos_enabled": "true"}}

#: Commands that need living workers or servers of their own; where they are run, their JSON is checked as well.
ELSEWHERE = {
    "demo": "tests/test_demo.py",
    "ui": "tests/cli/test_ui.py",
    "bench": "tests/cli/test_bench.py",
    "worker drain": "tests/cli/test_draining.py",
    "worker restart": "tests/cli/test_draining.py",
    "chaos worker-kill": "tests/conformance/test_chaos.py",
    "chaos network-partition": "tests/conformance/test_chaos.py",
    "chaos load-spike": "tests/conformance/test_chaos.py",
    "chaos task-corrupt": "tests/conformance/test_chaos.py",
    "chaos slow-task": "tests/conformance/test_chaos.py",
    "chaos verify": "tests/conformance/test_chaos.py",
}

#: Commands that ask no Redis, or one of their own.
WITHOUT_STORE = {"demo", "bench", "config show", "config set"}

#: Arguments that name something which is not there.
UNKNOWN: dict[str, str] = {
    "tasks inspect": "no-such-task",
    "tasks retry": "no-such-task",
    "dlq inspect": "no-such-task",
    "dlq release": "no-such-task",
    "dlq import": "no-such-file",
    "worker drain": "no-such-worker",
    "worker restart": "no-such-worker",
    "queue pause": "no-such-queue",
    "queue purge": "no-such-queue",
    "config check-deploy": "no_such_module",
    "config set": "no_such_setting",
}


#: Commands that take any name: `tasks cancel` marks a task of which nothing is known yet.
TAKE_ANY = {"tasks cancel"}


def calls(command: str) -> list[list[str]]:
    """Return the command lines, after `rl`, by which a command is tried."""
    return [[*command.split(), *arguments.split()] for arguments in CALLS.get(command, [""])]

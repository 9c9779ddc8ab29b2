"""The commands that the pages show run, and print what they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relier.store import Store
from tests.documented.console import Console, Line, labels, lines_of
from tests.documented.pages import PAGES, ROOT, Block, blocks
from tests.documented.system import Shop
from tests.processes import Started
from tests.waiting import wait_until

#: A block that another test runs is preceded by a comment that names it.
ELSEWHERE = re.compile(r"^run by (\S+)$")
#: Servers of the pages.
REDIS, RABBITMQ = "redis://redis.internal:6379/0", "amqp://relier:password@rabbit.internal:5672/%2F"
_NEEDS_WORKERS = re.compile(r"rl worker (?:drain|restart)|--canary|xargs")
_NEEDS_NOBODY = re.compile(r"rl admin reset ")


def shell_blocks() -> Iterator[Block]:
    for page in PAGES:
        yield from blocks(page, "sh", "console")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Any:
    """One kind of server will do."""
    return request.getfixturevalue("servers").store("embedded")


@pytest.mark.parametrize("block", [b for b in shell_blocks() if not ELSEWHERE.match(b.mark)], ids=str)
def test_shown_commands_run(
    block: Block, store: Store, store_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    needs_workers = _NEEDS_WORKERS.search(block.code) is not None
    Shop(store, tmp_path, attended=not needs_workers and _NEEDS_NOBODY.search(block.code) is None)
    console = Console(tmp_path, store, {"redis_url": store_url, "state_dir": str(tmp_path / "state")})
    console.replaced[REDIS] = store_url
    if RABBITMQ in block.code:
        console.replaced[RABBITMQ] = request.getfixturevalue("vhost")
    if not needs_workers:
        for line in lines_of(block):
            console.run(line)
        return
    command = ("worker", "start", "--processes", "2", "--", "my_app.tasks")
    with Started(tmp_path, "relier_cli.app", *command, **console.variables) as started:
        wait_until(lambda: len(store.fleet.workers()) == 2, 60, f"two workers: {started.output}")
        for line in lines_of(block):
            console.run(line)


@pytest.mark.parametrize("block", [b for b in shell_blocks() if ELSEWHERE.match(b.mark)], ids=str)
def test_what_runs_other_commands_exists(block: Block) -> None:
    match = ELSEWHERE.match(block.mark)
    assert match
    assert (ROOT / match[1]).is_file()


def test_headings_and_names_of_fields_are_compared() -> None:
    assert labels(("ID  DEAD SINCE", "a  b", "in motion: 0", "ok  clock: fine")) == [
        "ID",
        "DEAD SINCE",
        "in motion:",
        "clock:",
    ]


def test_a_command_that_fails_or_prints_something_else_is_found(store: Store, store_url: str, tmp_path: Path) -> None:
    console = Console(tmp_path, store, {"redis_url": store_url})
    with pytest.raises(AssertionError, match="exit 2"):
        console.run(Line("rl tasks list --no-such-option"))
    with pytest.raises(AssertionError, match="does not print"):
        console.run(Line("rl audit", ("no such field: 1",)))

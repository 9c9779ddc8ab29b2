"""`rl chaos` with the roles of redis/users.acl: workers as `worker`, the command as `operator`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import spawn
from tests.deploy.shipped import ShippedRedis
from tests.integration.harness import Harness

pytestmark = pytest.mark.slow


@pytest.fixture
def fleet(shipped: ShippedRedis, tmp_path: Path) -> Iterator[Harness]:
    fleet = Harness(shipped, tmp_path, redis_url=shipped.url_of("worker"), chaos_enabled="true")
    for worker in fleet.workers(2):
        worker.wait_settled_in()
    yield fleet
    fleet.close()


def chaos(fleet: Harness, url: str, *words: str) -> tuple[int, Any]:
    command = [sys.executable, "-m", "relier_cli.app", "chaos", *words, "--json"]
    done = spawn.run(command, env=fleet.environment(redis_url=url), cwd=fleet.folder, timeout=150)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def test_an_operator_may_hurt_workers_and_nobody_else_may(shipped: ShippedRedis, fleet: Harness) -> None:
    code, told = chaos(fleet, shipped.url_of("worker"), "worker-kill", "--yes")
    assert (code, "does not let its user 'worker'" in told) == (1, True), told

    for words in (
        ["network-partition", "--seconds", "2", "--yes"],
        ["task-corrupt"],
        ["worker-kill", "--yes"],
        ["verify"],
    ):
        code, told = chaos(fleet, shipped.url_of("operator"), *words)
        assert (code, told["held"]) == (0, True), (told, fleet.report())

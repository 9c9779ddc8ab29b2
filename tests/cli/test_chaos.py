"""`rl chaos`: what it refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from relier.hosting import Hosting
from relier.store import Store
from tests.cli.conftest import CommandLine

#: A worker that would take part.
WILLING: dict[str, Any] = {
    "role": "worker",
    "host": "here",
    "pid": 1,
    "threads": 1,
    "chaos": True,
    "hosting": Hosting.ALONE,
}

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@pytest.fixture
def listening(store: Store) -> Iterator[Any]:
    """Call with a worker's id: it can be reached, as far as anybody sees."""
    channels = store.client.pubsub()

    def listen(worker: str, **told: Any) -> None:
        store.fleet.register(worker, {**WILLING, **told})
        channels.subscribe(store.keys.control(worker))
        channels.get_message(timeout=5)

    yield listen
    channels.close()


def test_nothing_is_done_unless_the_settings_allow_it(rl: CommandLine) -> None:
    done = rl("chaos", "worker-kill", "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rl chaos is refused: RELIER_CHAOS_ENABLED is not true.")


def test_a_worker_that_does_not_allow_it_is_refused_at_once_with_those_that_do(rl: CommandLine, listening: Any) -> None:
    listening("here:1:aa", chaos=False)
    listening("there:2:bb", host="there")
    done = rl("chaos", "worker-kill", "here", "--yes", chaos_enabled="true")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Worker here:1:aa does not allow it" in done.stderr
    assert "Those that do: there:2:bb." in done.stderr


def test_without_a_worker_that_allows_it_those_that_do_not_are_named(rl: CommandLine, listening: Any) -> None:
    listening("here:1:aa", chaos=False)
    done = rl("chaos", "worker-kill", "--yes", chaos_enabled="true")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is none. These do not allow it: here:1:aa." in done.stderr


@pytest.mark.parametrize("hosting", [Hosting.ALONE, Hosting.SHARED])
def test_a_worker_from_which_nobody_could_take_over_is_left_alone(
    rl: CommandLine, listening: Any, hosting: Hosting
) -> None:
    listening("here:1:aa", hosting=hosting)
    if hosting is Hosting.SHARED:
        listening("here:2:bb", hosting=hosting)
    done = rl("chaos", "worker-kill", "here:1:aa", "--yes", chaos_enabled="true")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Nobody could take over from here:1:aa" in done.stderr


def test_a_shared_server_needs_a_yes(rl: CommandLine, listening: Any) -> None:
    listening("here:1:aa")
    listening("here:2:bb")
    done = rl("chaos", "worker-kill", "--seed", "1", chaos_enabled="true")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Add --yes to do it." in done.stderr


def test_the_same_seed_chooses_the_same_worker(rl: CommandLine, listening: Any) -> None:
    workers = [f"here:{number}:aa" for number in range(1, 9)]
    for number, worker in enumerate(workers, start=1):
        listening(worker, pid=number)
    told = [rl("chaos", "worker-kill", "--seed", seed, chaos_enabled="true").stderr for seed in ("1", "1", "2")]
    assert told[0] == told[1]
    assert told[0] != told[2]
    assert sum(worker in told[0] for worker in workers) == 1


def test_which_workers_allow_it_is_told(rl: CommandLine, listening: Any) -> None:
    listening("here:1:aa")
    listening("here:2:bb", chaos=False)
    rows = rl.json("worker", "status")["workers"]
    assert {row["id"]: row["chaos"] for row in rows} == {"here:1:aa": True, "here:2:bb": False}

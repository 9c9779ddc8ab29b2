"""What a run keeps of its work is there for the next one, wherever that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where
from tests.integration.harness import Harness

#: In the record, in a key of its own, in a file.
SIZES = (10, 5_000, 200_000)


def _fleet(fleets: Fleets, folder: Path) -> Harness:
    return fleets(checkpoint_backend="filesystem", checkpoint_dir=folder, checkpoint_max_inline_bytes=50_000)


def _files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.ckpt"))


def _keys(fleet: Harness) -> list[bytes]:
    return [name for page in fleet.store.runner.scan("*:cp:*") for name in page]


@where()
def test_the_run_after_a_crash_finds_what_the_killed_one_kept(fleets: Fleets, tmp_path: Path) -> None:
    fleet = _fleet(fleets, tmp_path)
    victim = fleet.worker(threads=6)
    actors = (fleet.actors.limits.resuming, fleet.actors.limits.aresuming)
    tasks = {actor.push(fleet.gate(), size).id: size for actor in actors for size in SIZES}
    fleet.wait(lambda: len(fleet.effects("kept")) == len(tasks), what="kept checkpoints")
    assert {effect.detail for effect in fleet.effects("began")} == {None}
    assert (len(_files(tmp_path)), len(_keys(fleet))) == (2, 2)

    victim.kill()
    fleet.worker(threads=6)

    fleet.wait(lambda: len(fleet.effects("kept")) == 2 * len(tasks), what="all running again")
    for task, size in tasks.items():
        second = fleet.effects("began", task)[1]
        assert second.detail == {"run": 0, "data": "x" * size}, task
    fleet.open_gate()
    counters = fleet.settle(len(tasks))
    assert counters["completed"] == len(tasks)
    assert all(effect.detail["run"] == 1 for effect in fleet.effects("ran"))
    assert _keys(fleet) == []
    fleet.wait(lambda: not _files(tmp_path), what="no file left")


@where(("embedded",))
@pytest.mark.parametrize(
    ("point", "size", "begins"),
    [("checkpoint-written", 200_000, [0, 0]), ("checkpoint-recorded", 200_000, [0, 1])],
)
def test_a_crash_around_a_write_leaves_the_old_one_or_the_new_one(
    fleets: Fleets, tmp_path: Path, point: str, size: int, begins: list[int]
) -> None:
    fleet = _fleet(fleets, tmp_path)
    fleet.worker(failpoints=f"{point}=kill:{fleet.marker(point)}", threads=1)
    task = fleet.actors.limits.stepping.push(3, size).id
    fleet.wait(fleet.marker(point).exists, what="a kill")
    fleet.worker(threads=1)

    counters = fleet.settle(1)

    assert counters["completed"] == 1
    assert [effect.detail for effect in fleet.effects("began", task)] == begins

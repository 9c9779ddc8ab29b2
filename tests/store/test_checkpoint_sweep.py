"""Checkpoint files that nothing refers to are removed, once they are old; all others stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relier.checkpoint_files import CheckpointFiles, Reference, header_of
from relier.checkpoint_sweep import OLD, CheckpointSweep
from tests.store.desk import SHARD, Desk

DATA = b"half of the work " * 100


def written(files: CheckpointFiles) -> list[Path]:
    return sorted(path for path in files.root.rglob("*") if path.is_file() and path.name != "shared")


@pytest.fixture
def store_files(desk: Desk, tmp_path: Path) -> CheckpointFiles:
    return CheckpointFiles(tmp_path, desk.store.fleet.checkpoint_folder)


def kept(desk: Desk, files: CheckpointFiles, task: str) -> tuple[int, Path]:
    """Let a task run and keep its checkpoint in a file."""
    fence, reference = desk.run(task=task), files.write(task, SHARD, DATA)
    desk.store.checkpoints.keep("w1", desk.sending(task), fence, "f", reference.encode())
    return fence, Reference.parse(reference).path(files.root, task)


def make_old(files: CheckpointFiles) -> None:
    for path in written(files):
        os.utime(path, (path.stat().st_mtime - OLD - 60,) * 2)


def test_what_nothing_refers_to_is_swept_once_it_is_old(desk: Desk, store_files: CheckpointFiles) -> None:
    _, needed = kept(desk, store_files, "needed")
    fence, _ = kept(desk, store_files, "ended")
    desk.commit(fence, task="ended")
    store_files.write("needed", SHARD, b"never told")
    store_files.write("unknown", SHARD, b"of nobody")
    _, dead = kept(desk, store_files, "dead")
    desk.fail(desk.record("dead").fence, task="dead")
    (needed.parent / ".unfinished.ckpt").write_bytes(b"half")
    foreign = needed.parent / "README"
    foreign.write_text("not ours")
    sweep = CheckpointSweep(store_files, desk.store)

    assert sweep.sweep() == 0
    make_old(store_files)
    assert sweep.sweep() == 4

    assert written(store_files) == sorted([needed, dead, foreign])
    assert header_of(needed) == {"v": 1, "task": "needed", "shard": SHARD}


def test_many_files_are_swept_in_pieces(desk: Desk, store_files: CheckpointFiles) -> None:
    for i in range(250):
        store_files.write(f"t{i}", SHARD, b"data")
    make_old(store_files)
    assert CheckpointSweep(store_files, desk.store).sweep() == 250


def test_a_folder_that_is_not_the_stores_is_not_swept(desk: Desk, tmp_path: Path) -> None:
    CheckpointFiles(tmp_path / "host-1", desk.store.fleet.checkpoint_folder).folder()
    elsewhere = CheckpointFiles(tmp_path / "host-2", desk.store.fleet.checkpoint_folder)
    elsewhere.write("t", SHARD, b"data")
    make_old(elsewhere)
    assert CheckpointSweep(elsewhere, desk.store).sweep() == 0

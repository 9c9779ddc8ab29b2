"""Large checkpoints in files: durable, checked, out of reach for task ids, and never left for good."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from relier import checkpoint_files
from relier.checkpoint_checks import checkpoint_check
from relier.checkpoint_files import CheckpointFiles, Reference
from relier.settings import Settings
from relier.store import Store

DATA = b"half of the work " * 10_000


class Names:
    """Stands for the store: it keeps the first name that is proposed."""

    def __init__(self) -> None:
        self.name = ""

    def __call__(self, proposed: str) -> str:
        self.name = self.name or proposed
        return self.name


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    return CheckpointFiles(tmp_path / "checkpoints", Names())


def written(files: CheckpointFiles) -> list[Path]:
    return sorted(path for path in files.root.rglob("*") if path.is_file() and path.name != "shared")


def test_what_was_written_is_read_and_can_be_removed(files: CheckpointFiles) -> None:
    reference = files.write("t", 7, DATA)
    assert files.read("t", reference) == DATA
    (path,) = written(files)
    assert path.stat().st_size < len(DATA) / 10
    files.remove("t", reference)
    files.remove("t", reference)
    assert written(files) == []


def test_nobody_else_can_read_it(files: CheckpointFiles) -> None:
    before = os.umask(0)
    try:
        files.write("t", 7, DATA)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (files.root, *files.root.rglob("*")) if path.is_dir()}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.root.rglob("*") if path.is_file()} == {0o600}


@pytest.mark.parametrize("task_id", ["../../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "\udc80", "..", ""])
def test_no_task_id_leads_anywhere_else(files: CheckpointFiles, task_id: str) -> None:
    reference = files.write(task_id, 7, b"data")
    assert files.read(task_id, reference) == b"data"
    (path,) = written(files)
    assert path.resolve().is_relative_to(files.folder())
    assert len(path.name) < 100


@pytest.mark.parametrize(
    "reference", ["..", "a.1.b.c", "../../x.1.d.0123456789abcdef", "0123456789abcdef.1.d.../..", "0123456789abcdef"]
)
def test_no_reference_leads_anywhere_else(files: CheckpointFiles, reference: str) -> None:
    with pytest.raises(ValueError):
        Reference.parse(reference)
    assert files.read("t", reference) is None
    files.remove("t", reference)


@pytest.mark.parametrize("damage", ["flipped", "another", "truncated", "longer", "empty", "gone", "a bomb"])
def test_a_damaged_file_is_told_of_and_not_returned(
    files: CheckpointFiles, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    reference = files.write("t", 7, os.urandom(5000))
    (path,) = written(files)
    raw = path.read_bytes()
    changed = {
        "flipped": raw[:3000] + bytes([raw[3000] ^ 1]) + raw[3001:],
        "another": raw.partition(b"\n")[0] + b"\n" + zlib.compress(os.urandom(5000)),
        "truncated": raw[:3000],
        "longer": raw.partition(b"\n")[0] + b"\n" + zlib.compress(os.urandom(9000)),
        "empty": b"",
        "gone": None,
        "a bomb": raw.partition(b"\n")[0] + b"\n" + zlib.compress(bytes(10_000_000)),
    }[damage]
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    assert files.read("t", reference) is None
    assert "A checkpoint cannot be read; its task begins anew." in caplog.text


@pytest.mark.parametrize("step", ["fsync", "rename", "write"])
def test_a_write_that_fails_leaves_nothing_and_the_one_before(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = files.write("t", 7, b"before")

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    if step == "rename":
        monkeypatch.setattr(Path, "rename", fail)
    elif step == "fsync":
        monkeypatch.setattr("os.fsync", fail)
    else:
        monkeypatch.setattr("os.fdopen", fail)
    with pytest.raises(OSError, match="No space left"):
        files.write("t", 7, DATA)
    monkeypatch.undo()
    assert files.read("t", before) == b"before"
    assert len(written(files)) == 1


def test_stores_do_not_see_each_others_files(tmp_path: Path) -> None:
    one, other = CheckpointFiles(tmp_path, Names()), CheckpointFiles(tmp_path, Names())
    reference = one.write("t", 7, b"one")
    other.write("t", 7, b"other")
    assert one.folder() != other.folder()
    assert one.read("t", reference) == b"one"


def test_of_several_first_writers_one_names_the_folder(tmp_path: Path) -> None:
    names = Names()
    one, other = CheckpointFiles(tmp_path, names), CheckpointFiles(tmp_path, names)
    assert one.folder() == other.folder()
    assert [path.name for path in tmp_path.iterdir()] == [names.name]
    assert one.standing() == other.standing() == "shared"


def test_the_loser_of_a_race_for_the_name_leaves_nothing(tmp_path: Path) -> None:
    names = Names()

    def beaten(proposed: str) -> str:
        if proposed:
            CheckpointFiles(tmp_path, names).folder()
        return names(proposed)

    assert CheckpointFiles(tmp_path, beaten).folder().name == names.name
    assert [path.name for path in tmp_path.iterdir()] == [names.name]


def test_who_sees_another_folder_is_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = Names()
    CheckpointFiles(tmp_path / "host-1", names).folder()
    elsewhere = CheckpointFiles(tmp_path / "host-2", names)
    assert elsewhere.standing() == "apart"
    elsewhere.write("t", 7, b"data")
    assert "The folder of checkpoints is not the one that other workers use." in caplog.text
    assert elsewhere.standing() == "apart"


def test_after_the_store_was_emptied_a_new_folder_is_used(files: CheckpointFiles, monkeypatch: Any) -> None:
    before = files.folder()
    files._name_folder = Names()
    monkeypatch.setattr(checkpoint_files, "NAME_KEPT", 0.0)
    assert files.folder() != before


# Doctor


def findings(client: redis.Redis, folder: Path, **more: Any) -> Sequence[tuple[str, str]]:
    settings = Settings(checkpoint_dir=folder, **{"checkpoint_backend": "filesystem", **more})
    store = Store(client)
    found = [(f.level, f.message) for f in checkpoint_check(store)(client, settings)]
    store.close()
    return found


def test_doctor_looks_at_the_folder(client: redis.Redis, tmp_path: Path) -> None:
    assert findings(client, tmp_path, checkpoint_backend="inline") == []
    ((level, message),) = findings(client, tmp_path / "missing")
    assert (level, "is no folder" in message) == ("error", True)
    ((level, message),) = findings(client, tmp_path)
    assert (level, "nothing was kept there yet" in message) == ("ok", True)
    store = Store(client)
    CheckpointFiles(tmp_path / "shared", store.fleet.checkpoint_folder).folder()
    assert findings(client, tmp_path / "shared")[0][0] == "ok"
    (tmp_path / "other").mkdir()
    ((level, message),) = findings(client, tmp_path / "other")
    assert (level, "is not the folder that the workers use" in message) == ("error", True)
    store.close()


def test_doctor_names_the_hosts_of_workers_that_see_something_else(client: redis.Redis, tmp_path: Path) -> None:
    store = Store(client)
    CheckpointFiles(tmp_path, store.fleet.checkpoint_folder).folder()
    store.fleet.register("a:1:x", {"host": "a", "checkpoints": "shared"})
    store.fleet.register("b:1:y", {"host": "b", "checkpoints": "apart"})
    store.fleet.register("c:1:z", {"host": "c", "checkpoints": "inline"})
    warnings = [message for level, message in findings(client, tmp_path) if level == "warning"]
    assert [message.rpartition("on ")[2] for message in warnings] == ["b.", "c."]
    store.close()


def test_doctor_says_when_the_folder_cannot_be_written(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    ((level, message),) = findings(client, tmp_path)
    assert (level, message.endswith("cannot be written to: Read-only file system.")) == ("error", True)

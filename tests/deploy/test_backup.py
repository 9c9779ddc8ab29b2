"""A backup of the Redis that is shipped can be restored, and a damaged one is noticed."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from relier.settings import Settings
from relier.store import Store
from tests import processes
from tests.cli.conftest import Tasks
from tests.deploy.shipped import FILES, ShippedRedis, password


def run(name: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**processes.environment(), "RL": f"{sys.executable} -m relier_cli.app", **variables}
    command = ["sh", str(FILES / name), *map(str, arguments)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=processes.PATIENCE, check=False)


def back_up(shipped: ShippedRedis, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    where = ("-h", "127.0.0.1", "-p", str(shipped.port), "--user", "backup")
    return run("backup.sh", folder, *where, **{"REDISCLI_AUTH": password("backup"), **variables})


@pytest.fixture
def backup(shipped: ShippedRedis, tmp_path: Path) -> Path:
    """A backup of a store with some tasks."""
    with closing(Store.from_settings(Settings(redis_url=shipped.url))) as store:
        tasks = Tasks(store)
        for _ in range(3):
            tasks.scheduled()
        tasks.dead(1)
        tasks.running(1)
    done = back_up(shipped, tmp_path / "backups")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_a_backup_is_restored_and_its_account_adds_up(shipped: ShippedRedis, backup: Path, tmp_path: Path) -> None:
    assert backup.stat().st_mode & 0o077 == 0
    assert shipped.refused() == []
    done = run("restore-drill.sh", backup, tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    with shipped.client() as client:
        assert f"restored {client.dbsize()} keys" in done.stdout
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["appendonlydir"]
    again = run("restore-drill.sh", backup, tmp_path / "data")
    assert (again.returncode, "is not empty" in again.stderr) == (1, True)


@pytest.mark.parametrize("digest", [True, False])
def test_a_damaged_backup_is_not_restored(backup: Path, digest: bool) -> None:
    data = bytearray(backup.read_bytes())
    data[len(data) // 2] ^= 0xFF
    backup.write_bytes(data)
    if not digest:
        Path(f"{backup}.sha256").unlink()
    done = run("restore-drill.sh", backup)
    assert done.returncode == 1
    assert ("digest differs" if digest else "cannot be read") in done.stderr


def test_old_backups_go_and_a_failed_one_leaves_nothing(shipped: ShippedRedis, tmp_path: Path) -> None:
    for day in range(1, 4):
        (tmp_path / f"relier-2020010{day}T000000Z.rdb").touch()
    refused = back_up(shipped, tmp_path, REDISCLI_AUTH="wrong")
    assert refused.returncode == 1
    assert refused.stderr.startswith("backup.sh: ")
    assert len(list(tmp_path.iterdir())) == 3
    done = back_up(shipped, tmp_path, KEEP="2")
    assert done.returncode == 0, done.stderr
    kept = sorted(path.name for path in tmp_path.glob("*.rdb"))
    assert kept == ["relier-20200103T000000Z.rdb", Path(done.stdout.strip()).name]

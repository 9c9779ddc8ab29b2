from __future__ import annotations

from relier.store import Store
from relier.store.locks import Holder
from tests.cli.conftest import CommandLine


def test_locks_are_purged_only_on_purpose(rl: CommandLine, store: Store) -> None:
    holder = Holder("token", "somebody", 0)
    assert store.locks.acquire("k", holder, 60).verdict == "granted"

    refused = rl("admin", "purge-locks")
    assert (refused.returncode, store.locks.renew("k", holder, 60)) == (2, True)
    assert "Add --yes to do it." in refused.stderr

    assert rl.json("admin", "purge-locks", "--yes") == {"locks": 1, "keys": 0}
    assert not store.locks.renew("k", holder, 60)
    assert "0 locks and 0 keys of tasks are free." in rl("admin", "purge-locks", "--yes", "--completed").stdout

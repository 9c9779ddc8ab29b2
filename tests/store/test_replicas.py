"""What the store was told is durable once a replica has it, where there is one."""

from __future__ import annotations

import pytest
import redis

from relier.store import Store
from relier.store.replicas import Replicas
from tests.servers.groups import SentinelGroup


def test_nobody_is_waited_for_without_replicas(store_url: str) -> None:
    store = Store(redis.Redis.from_url(store_url))

    Replicas(store.runner, store.keys).wait()

    assert not store.client.exists(store.keys.marker(0))  # nothing was written


def test_a_replica_is_waited_for(sentinels: SentinelGroup) -> None:
    store = Store(sentinels.client(protocol=2))
    (replica,) = (member for member in sentinels.members if member.role() == "slave")
    replicas = Replicas(store.runner, store.keys)
    store.runner.command("SET", "rl:relier:{01}:x", "1")

    replicas.wait()

    with replica.client() as client:
        assert client.get("rl:relier:{01}:x") == b"1"


def test_a_replica_that_does_not_confirm_is_waited_for_as_long_as_it_is_connected(
    sentinels: SentinelGroup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(sentinels.client(protocol=2))
    replicas = Replicas(store.runner, store.keys)
    replicas.wait()
    monkeypatch.setattr(store.runner, "confirmed", lambda *_: 0)

    with pytest.raises(redis.TimeoutError):
        replicas.wait()

    monkeypatch.setattr(store.runner, "about", lambda *_: [b"role:master\r\nconnected_slaves:0\r\n"])
    replicas.wait()  # it has gone: there is nobody to wait for


def test_a_user_who_may_not_ask_goes_by_the_disk(
    sentinels: SentinelGroup,
    caplog: pytest.LogCaptureFixture,
) -> None:
    master = sentinels.masters()[0]
    master.ask("ACL", "SETUSER", "bare", "on", "nopass", "~*", "+@all", "-wait")
    store = Store(master.client(protocol=2, username="bare", password="x"))
    replicas = Replicas(store.runner, store.keys)
    try:
        replicas.wait()
        replicas.wait()
    finally:
        master.ask("ACL", "DELUSER", "bare")

    assert caplog.text.count("Replicas cannot be waited for; the disk of the master decides.") == 1

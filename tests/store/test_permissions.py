"""Scripts that only read are sent as such, and what an ACL refuses is said in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from relier.store import Store
from relier.store.permissions import RefusedError, explained
from relier.store.purging import Purge
from tests.servers import RedisServer

NAME, PASSWORD = "guest", "hush-hush"


@contextmanager
def guest(server: RedisServer, client: redis.Redis, *rules: str) -> Iterator[Store]:
    """Give the store as a user with these rights sees it."""
    client.execute_command("ACL SETUSER", NAME, "reset", "on", f">{PASSWORD}", "allchannels", *rules)
    store = Store(server.client(username=NAME, password=PASSWORD))
    try:
        yield store
    finally:
        store.close()
        client.execute_command("ACL DELUSER", NAME)


def test_who_may_only_read_can_look(server: RedisServer, client: redis.Redis) -> None:
    with guest(server, client, "+@all", "%R~rl:*") as store:
        assert store.status("t") is None
        assert store.admissions.usages() == []
        assert store.fleet.observe().obligations == ()
        with pytest.raises(RefusedError, match="'guest' run 'retry'"):
            store.tasks.retry("t", "me", 0)


def test_what_is_refused_inside_a_script_is_said(server: RedisServer, client: redis.Redis) -> None:
    with guest(server, client, "+@all", "-hget", "~rl:*") as store:
        with pytest.raises(RefusedError) as caught:
            store.records(["t"])
        assert "'inspect'" in str(caught.value)
        assert PASSWORD not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_peoples_scripts_need_the_gate(server: RedisServer, client: redis.Redis) -> None:
    rules = ("+@all", "~rl:relier:{??}:[a-z]*")
    with guest(server, client, *rules) as store:
        assert store.status("t") is None
        for call in (
            lambda: store.tasks.retry("t", "me", 0),
            lambda: store.purges.mark(Purge(("*",), 1, 1.0, "me")),
            store.admissions.forget,
        ):
            with pytest.raises(RefusedError):
                call()


def test_other_errors_stay_as_they_are() -> None:
    error = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert explained(error, redis.Redis(), "HGET") is error

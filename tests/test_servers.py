from __future__ import annotations

import pytest
import redis

from tests.conftest import PrivateServers
from tests.servers import Server
from tests.sources import KINDS
from tests.waiting import await_until, wait_until


def test_the_store_is_empty_at_the_start_of_a_test(client: redis.Redis) -> None:
    assert client.dbsize() == 0
    client.set("relier:left", "over")


def test_the_store_is_empty_at_the_start_of_the_next_test(client: redis.Redis) -> None:
    assert client.dbsize() == 0


def test_a_server_refuses_eviction_and_keeps_a_log(client: redis.Redis) -> None:
    assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    assert client.config_get("appendonly")["appendonly"] == "yes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_server_keeps_its_data_over_a_kill(private_server: PrivateServers, kind: str) -> None:
    server = private_server(kind, appendfsync="always")
    with server.client() as client:
        client.set("key", "value")

    server.kill()
    assert not server.answers()

    server.restart()
    with server.client() as client:
        assert client.get("key") == b"value"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_server_does_not_answer_until_it_goes_on(private_server: PrivateServers, kind: str) -> None:
    server: Server = private_server(kind)

    server.stop()
    with server.client(socket_timeout=0.1) as client, pytest.raises(redis.TimeoutError):
        client.ping()

    server.cont()
    wait_until(server.answers, what="an answer after SIGCONT")


def test_waiting_in_vain_says_what_for() -> None:
    with pytest.raises(AssertionError, match="in vain for: the moon"):
        wait_until(lambda: False, timeout=0.01, what="the moon")


def test_waiting_returns_what_the_condition_gave() -> None:
    import asyncio

    answers = iter([None, 0, "yes"])
    assert asyncio.run(await_until(lambda: next(answers))) == "yes"

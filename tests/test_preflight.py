from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from relier.errors import RelierStartupError
from relier.preflight import Finding, check_redis, inspect_redis
from relier.settings import Settings
from tests.conftest import PrivateServers
from tests.sources import STORES


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@contextmanager
def restricted(client: redis.Redis, *rules: str) -> Iterator[redis.Redis]:
    """Give a client of a user who may do everything but what the rules take away."""
    client.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "&*", "+@all", *rules)
    pool = client.connection_pool
    options = {**pool.connection_kwargs, "username": "guest", "password": "pw"}
    with redis.Redis(connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **options)) as guest:
        yield guest
    client.execute_command("ACL", "DELUSER", "guest")


def test_a_well_kept_server_passes(client: redis.Redis, settings: Settings) -> None:
    findings = check_redis(client, settings)

    assert {finding.level for finding in findings} == {"ok"}
    assert set(by_name(findings)) == {"reachability", "eviction policy", "version", "persistence", "clock", "server"}


@pytest.mark.parametrize("options", [{"protocol": 2}, {"protocol": 3}, {"decode_responses": True}])
def test_the_clients_protocol_makes_no_difference(store_url: str, options: dict[str, Any]) -> None:
    with redis.Redis.from_url(store_url, **options) as client:
        assert {finding.level for finding in check_redis(client, Settings(redis_url=store_url))} == {"ok"}


def test_an_absent_server_refuses_the_start_without_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can answer here
        url = f"redis://:secret@127.0.0.1:{taken.getsockname()[1]}/0"
        with redis.Redis.from_url(url) as client, pytest.raises(RelierStartupError) as caught:
            check_redis(client, Settings(redis_url=url))
    masked = url.replace("secret", "***")
    assert str(caught.value) == f"Relier cannot reach Redis ({masked}). Refusing to start."


def test_a_silent_server_refuses_the_start(private_server: PrivateServers) -> None:
    server = private_server()
    server.stop()
    with server.client(socket_timeout=0.1) as client, pytest.raises(RelierStartupError) as caught:
        check_redis(client, Settings(redis_url=server.url))
    assert str(caught.value) == f"Relier cannot reach Redis ({server.url}). Refusing to start."


@pytest.mark.parametrize("kind", STORES)
def test_a_missing_password_refuses_the_start_and_says_why(private_server: PrivateServers, kind: str) -> None:
    server = private_server(kind)
    settings = Settings(redis_url=server.url)
    with server.client() as client:
        client.config_set("requirepass", "secret")
    with server.client() as client:
        finding = by_name(inspect_redis(client, settings))["reachability"]
    assert finding.level == "error"
    assert finding.message == f"Relier cannot reach Redis ({server.url}). Refusing to start."
    assert "RELIER_REDIS_PASSWORD" in finding.fix
    with server.client(password="secret") as client:
        client.config_set("requirepass", "")


@pytest.mark.parametrize("kind", STORES)
def test_an_evicting_server_refuses_the_start(private_server: PrivateServers, kind: str) -> None:
    server = private_server(kind, maxmemory_policy="allkeys-lru")
    with server.client() as client, pytest.raises(RelierStartupError) as caught:
        check_redis(client, Settings(redis_url=server.url))
    assert str(caught.value) == "Relier requires Redis maxmemory-policy='noeviction', but got 'allkeys-lru'."


def test_the_policy_is_found_where_config_is_forbidden(client: redis.Redis, settings: Settings) -> None:
    client.config_set("maxmemory-policy", "volatile-ttl")
    try:
        with restricted(client, "-config") as guest:
            finding = by_name(inspect_redis(guest, settings))["eviction policy"]
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert finding.message.endswith("but got 'volatile-ttl'.")


def test_a_server_without_aof_is_a_warning_with_the_fix(
    client: redis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    client.config_set("appendonly", "no")
    try:
        with caplog.at_level(logging.WARNING):
            finding = by_name(check_redis(client, settings))["persistence"]
    finally:
        client.config_set("appendonly", "yes")
    assert (finding.level, "appendonly yes" in finding.fix) == ("warning", True)
    assert "runs without AOF" in caplog.text


def test_a_forbidden_command_is_named(client: redis.Redis, settings: Settings) -> None:
    with restricted(client, "-eval_ro") as guest, pytest.raises(RelierStartupError) as caught:
        check_redis(guest, settings)
    assert "refused a command that Relier needs" in str(caught.value)
    assert "eval" in str(caught.value)


def test_a_renamed_command_is_missed(private_server: PrivateServers) -> None:
    server = private_server("redis", rename_command="PUBLISH ''")
    with server.client() as client:
        finding = by_name(inspect_redis(client, Settings(redis_url=server.url)))["commands"]
    assert (finding.level, finding.message) == ("error", "Redis lacks commands that Relier needs: PUBLISH.")


def test_a_replica_refuses_the_start(private_server: PrivateServers) -> None:
    server = private_server()
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        finding = by_name(inspect_redis(client, Settings(redis_url=server.url)))["role"]
    assert finding.level == "error"


def test_a_wrong_clock_is_a_warning(client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 90)
    finding = by_name(inspect_redis(client, settings))["clock"]
    assert finding.level == "warning"
    assert "-90." in finding.message or "-89." in finding.message


def test_further_checks_run_last(client: redis.Redis, settings: Settings) -> None:
    def refuse(client: redis.Redis, settings: Settings) -> list[Finding]:
        return [Finding("error", "format", "The store's format is newer.", "Upgrade Relier.")]

    assert inspect_redis(client, settings, [refuse])[-1].name == "format"
    with pytest.raises(RelierStartupError, match="format is newer"):
        check_redis(client, settings, [refuse])


def test_an_embedded_server_is_told_apart(client: redis.Redis) -> None:
    finding = by_name(inspect_redis(client, Settings()))["server"]
    assert finding.message.startswith("The embedded server is used (")

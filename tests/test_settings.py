from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from relier.errors import RelierConfigError, RelierStartupError
from relier.settings import Settings, get_settings, safe_url
from relier.urls import servers_of

#: Every variable of the contract with its default, where the contract gives one.
CONTRACT = {
    "REDIS_URL": None,
    "BROKER_URL": None,
    "ACTORS": (),
    "QUEUES": (),
    "NAMESPACE": "relier",
    "STATE_DIR": ...,
    "REDIS_PASSWORD": None,
    "REDIS_USE_SENTINEL": False,
    "REDIS_SENTINEL_NODES": (),
    "REDIS_SENTINEL_MASTER_NAME": "relier-master",
    "REDIS_SENTINEL_PASSWORD": None,
    "REDIS_MAX_CONNECTIONS": ...,
    "REDIS_SOCKET_TIMEOUT": 5,
    "REDIS_CONNECT_TIMEOUT": 2,
    "HEARTBEAT_TTL": 10,
    "RESURRECTION_ENABLED": True,
    "MAX_RESURRECTIONS": 5,
    "RESURRECTION_CHECK_INTERVAL": 0.25,
    "RESURRECTION_BATCH_SIZE": 1000,
    "RESURRECTION_MAX_QUEUE_DEPTH": 10000,
    "RESURRECTION_CLAIM_GRACE_PERIOD": 30,
    "RECOVERY_QUEUE": "own",
    "UNKNOWN_ACTOR_GRACE": 60,
    "IDEMPOTENCY_DEFAULT_TTL": 3600,
    "IDEMPOTENCY_INFLIGHT_TTL": 120,
    "RESULT_TTL": 3600,
    "MAX_RESULT_BYTES": ...,
    "MAX_PAYLOAD_BYTES": ...,
    "GRACEFUL_SHUTDOWN_TIMEOUT": 30,
    "ADMISSION_LIMIT": 5000,
    "ADMISSION_WINDOW": 10,
    "CHECKPOINT_MAX_INLINE_BYTES": 262144,
    "CHECKPOINT_BACKEND": "inline",
    "CHECKPOINT_DIR": Path("/var/lib/relier/checkpoints"),
    "SIGNING_KEYS": None,
    "SIGNING_REQUIRED": False,
    "SLO_TARGET": 0.999,
    "OTEL_ENABLED": False,
    "OTEL_EXPORTER_OTLP_ENDPOINT": None,
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "json",
    "METRICS_ADDR": None,
    "CHAOS_ENABLED": False,
    "FAILPOINTS": "",
    "TEST_REQUIRE": (),
}

#: Settings of ours that the contract does not name, with their defaults.
OURS = {
    "ADMISSION_MAX_DEPTH": 0,
    "DLQ_ALARM": 10_000,
    "DLQ_RETENTION": 0,
    "NEWER_VERSION_GRACE": 600,
    "PARK_AFTER": 0,
    "RABBITMQ_QUEUE_TYPE": "classic",
    "REDIS_USE_CLUSTER": False,
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("RELIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")


def problems(**variables: str) -> list[str]:
    """Return the lines of the error that these variables cause."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"RELIER_{name}", value)
        with pytest.raises(RelierConfigError) as caught:
            Settings()
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def test_every_variable_of_the_contract_exists_with_its_default() -> None:
    settings = Settings()
    assert {name.upper() for name in Settings.model_fields} == {*CONTRACT, *OURS}
    for name, default in {**CONTRACT, **OURS}.items():
        if default is not ...:
            assert getattr(settings, name.lower()) == default, name


def test_every_field_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_variables_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_HEARTBEAT_TTL", "2.5")
    monkeypatch.setenv("RELIER_ACTORS", "shop.tasks, shop.mails,")
    monkeypatch.setenv("RELIER_QUEUES", "mails")
    monkeypatch.setenv("RELIER_REDIS_SENTINEL_NODES", "one:26379,[::1]:26380")
    monkeypatch.setenv("RELIER_LOG_LEVEL", "WARNING")

    settings = get_settings()

    assert settings.heartbeat_ttl == 2.5
    assert settings.actors == ("shop.tasks", "shop.mails")
    assert settings.public_queues == ("high_priority", "default", "low_priority", "mails")
    assert settings.redis_sentinel_nodes == (("one", 26379), ("::1", 26380))
    assert settings.log_level == "warning"


def test_variables_are_read_from_the_env_file_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("RELIER_NAMESPACE=shop\nRELIER_HEARTBEAT_TTL=3\nOTHER=1\n")
    monkeypatch.setenv("RELIER_HEARTBEAT_TTL", "4")
    assert (Settings().namespace, Settings().heartbeat_ttl) == ("shop", 4)


def test_an_env_file_that_cannot_be_decoded_is_one_line() -> None:
    Path(".env").write_bytes(b"RELIER_NAMESPACE=\xff\xfe")
    assert problems() == [".env cannot be read (UnicodeDecodeError)."]


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_REDIS_URL", "")
    assert Settings().redis_url is None


def test_settings_are_read_once_and_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    first = get_settings()
    monkeypatch.setenv("RELIER_NAMESPACE", "other")
    assert get_settings() is first
    with pytest.raises(ValidationError):
        first.namespace = "third"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("HEARTBEAT_TTL", "soon", "RELIER_HEARTBEAT_TTL='soon': expected a number of seconds from 0.2 to 3600."),
        ("HEARTBEAT_TTL", "nan", "RELIER_HEARTBEAT_TTL='nan': expected a number of seconds from 0.2 to 3600."),
        ("MAX_RESURRECTIONS", "-1", "RELIER_MAX_RESURRECTIONS='-1': expected a whole number from 0 to 10000."),
        ("RESURRECTION_ENABLED", "perhaps", "RELIER_RESURRECTION_ENABLED='perhaps': expected true or false."),
        ("RECOVERY_QUEUE", "mine", "RELIER_RECOVERY_QUEUE='mine': expected own or re-queue."),
        ("SLO_TARGET", "1", "RELIER_SLO_TARGET='1': expected a number above 0 and below 1."),
        ("NAMESPACE", "a{b}", "RELIER_NAMESPACE='a{b}': expected 1 to 64 letters, digits, or . _ -."),
        ("METRICS_ADDR", "9191", "RELIER_METRICS_ADDR='9191': expected host:port, or :port."),
        ("REDIS_SENTINEL_NODES", "a", "RELIER_REDIS_SENTINEL_NODES='a': expected host:port, separated by commas."),
        ("QUEUES", "re-queue", "RELIER_QUEUES='re-queue': 're-queue' is an internal queue."),
        ("REDIS_URL", "redis//x", "RELIER_REDIS_URL='redis//x': a URL begins with redis://, rediss:// or unix://."),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_line_with_variable_value_and_range(name: str, value: str, line: str) -> None:
    assert problems(**{name: value}) == [line]


def test_every_bad_value_gets_its_line() -> None:
    assert len(problems(HEARTBEAT_TTL="x", ADMISSION_LIMIT="0", SIGNING_REQUIRED="?")) == 3


@pytest.mark.parametrize(
    ("url", "finding"),
    [
        ("redis://:secret@host:port/0", "the host or port is malformed"),
        ("redis://:secret@host:65536/0", "the host or port is malformed"),
        ("redis://:secret@host:0/0", "from 1 to 65535"),
        ("redis://:sec/ret@host:6379", "escape / # ? @ in passwords"),
        ("redis://:secret@host/first", "the number of the database"),
        ("redis://:secret@host/0?colour=red", "unknown to redis-py"),
        ("redis://:secret@host/0?socket_timeout=long", "bad value"),
        ("http://:secret@host", "a URL begins with"),
        ("redis//:secret@host", "a URL begins with"),
        ("unix://:secret@", "absolute path"),
        ("unix://:secret@/" + "x" * 110, "the socket path is 111 bytes long, the limit is 103"),
        ("amqp://:secret@host", "a URL begins with"),
    ],
)
def test_a_malformed_url_is_explained_without_its_password(url: str, finding: str) -> None:
    (line,) = problems(REDIS_URL=url)
    assert line.startswith("RELIER_REDIS_URL='")
    assert finding in line
    assert "secret" not in line
    assert "ret@" not in line


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://:6379/0", "rediss://u:p@h:6380/1", "unix:///run/r.sock?db=1", "redis://[::1]:6379", "redis://h?db=2"],
)  # fmt: skip
def test_a_good_url_is_taken_as_it_is(url: str) -> None:
    assert Settings(redis_url=url, broker_url=url).redis_url == url


def test_the_broker_may_be_rabbitmq() -> None:
    url = "amqp://u:p@one:5672;amqp://u:p@two"
    assert Settings(broker_url=url).broker_url == url
    (line,) = problems(BROKER_URL="amqp://u:secret@one;amqp://u:secret@two:many")
    assert line.startswith("RELIER_BROKER_URL='amqp://u:***@one;amqp://u:***@two:many': the host or port is malformed")


def test_sentinel_needs_its_nodes() -> None:
    (line,) = problems(REDIS_USE_SENTINEL="true")
    assert "RELIER_REDIS_SENTINEL_NODES" in line


def test_signing_is_required_once_keys_are_set() -> None:
    assert not Settings().signing_required
    assert Settings(signing_keys="a:b").signing_required
    assert not Settings(signing_keys="a:b", signing_required=False).signing_required


def test_no_secret_shows_in_the_representation() -> None:
    settings = Settings(
        redis_url="redis://:hidden@h",
        broker_url="redis://:hidden@h",
        redis_password="hidden",
        redis_sentinel_password="hidden",
        signing_keys="k:hidden",
    )
    assert "hidden" not in repr(settings)
    assert "hidden" not in str(settings)


def test_folders_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(state_dir="~/data").state_dir == tmp_path / "data"
    assert Settings(checkpoint_dir="here").checkpoint_dir == tmp_path / "here"


def test_an_unknown_variable_is_reported_but_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RELIER_HEARTBEET_TTL", "hidden")
    monkeypatch.setenv("RELIER_TEST_REDIS_URL", "redis://h")
    Path(".env").write_text("RELIER_COLOUR=hidden\n")

    get_settings()

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "Unknown variable RELIER_COLOUR is ignored."),
        (logging.WARNING, "Unknown variable RELIER_HEARTBEET_TTL is ignored; did you mean RELIER_HEARTBEAT_TTL?"),
    ]


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(RelierConfigError, match="did you mean heartbeat_ttl"):
        Settings(heartbeet_ttl=3)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:p@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://user:p@h", "redis://user:***@h"),
        ("redis://secret@h", "redis://***@h"),
        ("redis://u:a@b/c:d@h", "redis://u:***@h"),
        ("redis://h/0?password=p&db=1", "redis://h/0?password=***&db=1"),
        ("user:p@h", "***@h"),
        ("redis://h\n\x1b[0m", "redis://h??[0m"),
        ("redis://[::1", "redis://[::1"),
        ("", ""),
        (None, "None"),
        (b"\xff", "b'\\xff'"),
    ],
)
def test_a_url_is_shown_without_its_password(url: object, shown: str) -> None:
    assert safe_url(url) == shown


def test_a_config_error_is_a_startup_error() -> None:
    assert issubclass(RelierConfigError, RelierStartupError)
    assert issubclass(RelierConfigError, RuntimeError)


def test_importing_relier_reads_no_setting_and_opens_nothing() -> None:
    script = (
        "import sys, threading, relier; "
        "assert 'redis' not in sys.modules and 'relier.settings' not in sys.modules; "
        "assert threading.active_count() == 1"
    )
    environment = {**os.environ, "RELIER_REDIS_URL": "nonsense", "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ({"redis_use_cluster": True}, "RELIER_REDIS_USE_CLUSTER needs RELIER_REDIS_URL"),
        ({"redis_use_cluster": True, "redis_url": "unix:///run/s"}, "RELIER_REDIS_USE_CLUSTER needs RELIER_REDIS_URL"),
        ({"redis_use_cluster": True, "redis_url": "redis://a:1,b:2/3"}, "a Redis Cluster has number 0 alone"),
        ({"redis_url": "redis://a:1,b:2"}, "needs RELIER_REDIS_USE_CLUSTER=true"),
        ({"broker_url": "redis://a:1,b:2"}, "RELIER_BROKER_URL names several servers"),
        (
            {"redis_use_cluster": True, "redis_use_sentinel": True, "redis_sentinel_nodes": (("s", 1),)},
            "exclude each other",
        ),
        ({"redis_use_cluster": True, "redis_url": "redis://a:1,b:x"}, "host or port is malformed"),
    ],
)
def test_a_cluster_that_cannot_be_is_explained(values: dict[str, Any], finding: str) -> None:
    with pytest.raises(RelierConfigError, match=finding):
        Settings(**values)


def test_a_cluster_has_several_servers() -> None:
    url = "redis://:p,w@a:1,[::1]:2,c"
    assert Settings(redis_use_cluster=True, redis_url=url).redis_url == url
    assert servers_of(url) == ["redis://:p,w@a:1", "redis://:p,w@[::1]:2", "redis://:p,w@c"]
    assert safe_url(url) == "redis://:***@a:1,[::1]:2,c"

"""Relier's settings: read once from the environment and `.env`, checked, frozen.

Every variable is named `RELIER_` and the field's name in capitals. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from relier.errors import RelierConfigError
from relier.keyring import KeyRing
from relier.urls import RABBITMQ_SCHEMES, REDIS_SCHEMES, safe_url, servers_of, url_problem

__all__ = ["PUBLIC_QUEUES", "Settings", "get_settings", "reset_settings", "safe_url", "unknown_variables"]

PREFIX = "RELIER_"
ENV_FILE = ".env"

#: The queues that every installation has.
PUBLIC_QUEUES = ("high_priority", "default", "low_priority")

_DAY = 86_400.0
_QUEUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*\Z")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]]*):(?P<port>\d{1,5})\Z")


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _fold(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Address = tuple[str, int]


def _seconds(default: float, least: float, most: float, description: str) -> Any:
    expected = f"a number of seconds from {least:g} to {most:.10g}"
    return _plain(default, description, expected, ge=least, le=most, allow_inf_nan=False)


def _whole(default: int, least: int, most: int, description: str, unit: str = "") -> Any:
    expected = f"a whole number{unit and ' of ' + unit} from {least} to {most}"
    return _plain(default, description, expected, ge=least, le=most)


def _plain(default: Any, description: str, expected: str = "a text", **more: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"expected": expected}, **more)


def _switch(default: bool, description: str) -> Any:
    return _plain(default, description, "true or false")


def _secret(description: str) -> Any:
    return _plain(None, description, repr=False)


def default_state_dir() -> Path:
    """Return the per-user folder of the embedded server's data."""
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / "relier"
    try:
        return Path.home() / ".local" / "state" / "relier"
    except RuntimeError:  # no home folder at all
        return Path(tempfile.gettempdir()) / f"relier-{os.getuid()}"


class Settings(BaseSettings):
    """All settings of one process. Raises `RelierConfigError`, which names every bad variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, env_ignore_empty=True, extra="ignore", frozen=True
    )

    redis_url: str | None = _plain(None, "Redis for the store; unset: the embedded server.", repr=False)
    broker_url: str | None = _plain(None, "Broker; unset: the Redis URL. amqp:// for RabbitMQ.", repr=False)
    rabbitmq_queue_type: Literal["classic", "quorum"] = _plain(
        "classic", "Type of the queues that Relier makes on RabbitMQ.", "classic or quorum"
    )
    actors: Names = _plain(
        (), "Modules with actors that `relier.workers` imports.", "module names, separated by commas"
    )
    queues: Names = _plain((), "Public queues besides the built-in three.", "queue names, separated by commas")
    namespace: str = _plain(
        "relier",
        "Prefix of every key and channel in the store.",
        "1 to 64 letters, digits, or . _ -",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
    )
    state_dir: Path = Field(
        default_factory=default_state_dir,
        description="Folder of the embedded server's data.",
        json_schema_extra={"expected": "a folder"},
    )

    redis_password: SecretStr | None = _secret("Password of Redis, when the URL has none.")
    redis_use_sentinel: bool = _switch(False, "Find the Redis master through Sentinel.")
    redis_sentinel_nodes: Annotated[tuple[Address, ...], NoDecode] = _plain(
        (), "The Sentinels to ask.", "host:port, separated by commas"
    )
    redis_sentinel_master_name: str = _plain("relier-master", "The master's name in Sentinel.", min_length=1)
    redis_sentinel_password: SecretStr | None = _secret("Password of the Sentinels.")
    redis_use_cluster: bool = _switch(False, "The Redis is a Cluster; the URL names one or several of its servers.")
    redis_max_connections: int = _whole(64, 2, 100_000, "Size of a process's connection pool.")
    redis_socket_timeout: float = _seconds(5, 0.05, 600, "Longest wait for one answer of Redis.")
    redis_connect_timeout: float = _seconds(2, 0.05, 600, "Longest wait for a connection to Redis.")

    heartbeat_ttl: float = _seconds(10, 0.2, 3600, "A worker that gives no sign of life this long is dead.")
    resurrection_enabled: bool = _switch(True, "Whether orphaned tasks are put back, by resurrector or workers.")
    max_resurrections: int = _whole(5, 0, 10_000, "Crashes a task survives before it is dead-lettered.")
    resurrection_check_interval: float = _seconds(0.25, 0.01, 60, "Time between two sweeps.")
    resurrection_batch_size: int = _whole(1000, 1, 100_000, "Most tasks put back in one sweep.")
    resurrection_max_queue_depth: int = _whole(10_000, 1, 10**9, "Backlog at which resurrection waits.")
    resurrection_claim_grace_period: float = _seconds(
        30, 0.1, 1800, "A published task nobody claims within this time is published again (then doubling)."
    )
    recovery_queue: Literal["own", "re-queue"] = _plain(
        "own", "Where resurrected tasks go: their own queue, or the internal `re-queue`.", "own or re-queue"
    )
    unknown_actor_grace: float = _seconds(60, 0, _DAY, "How long a task of an unknown actor is held.")
    park_after: int = _whole(
        0,
        0,
        1000,
        "So many different tasks of an actor that fail alike, with no success between them, park it; 0: never.",
    )
    newer_version_grace: float = _seconds(600, 0, 7 * _DAY, "How long a task newer than every worker's code is held.")

    dlq_alarm: int = _whole(10_000, 0, 10**12, "Dead letters from which on there are too many; 0: never.")
    dlq_retention: float = _seconds(
        0, 0, 3660 * _DAY, "How long dead letters are kept before they are discarded; 0: for ever."
    )

    idempotency_default_ttl: float = _seconds(3600, 1, 366 * _DAY, "How long an idempotency key is remembered.")
    idempotency_inflight_ttl: float = _seconds(120, 1, _DAY, "How long a claim on a key outlives its dead owner.")
    result_ttl: float = _seconds(3600, 1, 366 * _DAY, "How long results, and the ids of ended tasks, are kept.")
    max_result_bytes: int = _whole(16 * 2**20, 1, 512 * 2**20, "Largest result kept.", "bytes")
    max_payload_bytes: int = _whole(16 * 2**20, 256, 512 * 2**20, "Largest message that may be enqueued.", "bytes")
    graceful_shutdown_timeout: float = _seconds(
        30, 0, _DAY, "How long a stopping worker waits for running tasks before it hands them over."
    )

    admission_limit: int = _whole(5000, 1, 10**12, "Tasks admitted in any interval as long as the window.")
    admission_window: float = _seconds(10, 0.1, 3600, "Length of the admission window.")
    admission_max_depth: int = _whole(0, 0, 10**12, "Tasks waiting in a queue at which it takes no more; 0: none.")

    checkpoint_max_inline_bytes: int = _whole(262_144, 0, 512 * 2**20, "Largest inline checkpoint.", "bytes")
    checkpoint_backend: Literal["inline", "filesystem"] = _plain(
        "inline", "Where checkpoints are kept.", "inline or filesystem"
    )
    checkpoint_dir: Path = _plain(
        Path("/var/lib/relier/checkpoints"), "Folder shared by every worker and the resurrector.", "a folder"
    )

    signing_keys: SecretStr | None = _secret("`kid:secret,…`: the first key signs, all verify.")
    signing_required: bool = Field(
        default_factory=lambda known: bool(known.get("signing_keys")),
        description="Refuse unsigned tasks; by default once keys are set. false: migration mode.",
        json_schema_extra={"expected": "true or false"},
    )

    slo_target: float = _plain(
        0.999,
        "Rate of tasks that must succeed.",
        "a number above 0 and below 1",
        gt=0,
        lt=1,
        allow_inf_nan=False,
    )
    otel_enabled: bool = _switch(False, "Send traces through OpenTelemetry.")
    otel_exporter_otlp_endpoint: str | None = _plain(None, "Where traces are sent.", "an http:// or https:// URL")
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_fold)] = _plain(
        "info", "Least level that is logged.", "debug, info, warning, error or critical"
    )
    log_format: Annotated[Literal["json", "console"], BeforeValidator(_fold)] = _plain(
        "json", "Form of a log line.", "json or console"
    )
    metrics_addr: str | None = _plain(None, "Where the Prometheus endpoint listens.", "host:port, or :port")

    chaos_enabled: bool = _switch(False, "Allow `rl chaos`.")
    failpoints: str = _plain("", "Named points at which a process under test stops or dies.")
    test_require: Names = _plain((), "Backends without which the test run fails.", "names, separated by commas")

    def __init__(self, **values: Any) -> None:
        for name in values:
            if name not in type(self).model_fields and name != "_env_file":
                raise RelierConfigError(f"Unknown setting {name!r}{_did_you_mean(name, type(self).model_fields)}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RelierConfigError([_explain(detail) for detail in error.errors() if _is_cause(detail)]) from None
        except (OSError, UnicodeDecodeError) as error:
            raise RelierConfigError(f"{ENV_FILE} cannot be read ({type(error).__name__}).") from None

    @property
    def public_queues(self) -> tuple[str, ...]:
        """The queues that actors may name: the built-in three and those of `RELIER_QUEUES`."""
        return tuple(dict.fromkeys((*PUBLIC_QUEUES, *self.queues)))

    @field_validator("state_dir", "checkpoint_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, url: str | None) -> str | None:
        return _checked_url(url, REDIS_SCHEMES)

    @field_validator("broker_url")
    @classmethod
    def _broker_url(cls, url: str | None) -> str | None:
        return _checked_url(url, REDIS_SCHEMES + RABBITMQ_SCHEMES)

    @field_validator("queues")
    @classmethod
    def _queue_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _QUEUE_NAME.match(name):
                raise ValueError(f"{name!r} is no queue name (letters, digits, . _ -; a letter or _ first)")
            if name == "re-queue" or name.endswith((".DQ", ".XQ")):
                raise ValueError(f"{name!r} is an internal queue")
        return names

    @field_validator("redis_sentinel_nodes", mode="before")
    @classmethod
    def _sentinel_nodes(cls, value: Any) -> Any:
        return tuple(parse_address(node) for node in _split(value)) if isinstance(value, str) else value

    @field_validator("signing_keys")
    @classmethod
    def _signing_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            KeyRing.parse(keys.get_secret_value())
        return keys

    @field_validator("metrics_addr")
    @classmethod
    def _metrics_addr(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value, host_needed=False)
        return value

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _otlp_endpoint(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^\s/]", value):
            raise ValueError
        return value

    @model_validator(mode="after")
    def _sentinel_is_complete(self) -> Settings:
        if self.redis_use_sentinel and not self.redis_sentinel_nodes:
            raise ValueError("RELIER_REDIS_USE_SENTINEL needs RELIER_REDIS_SENTINEL_NODES (host:port,host:port,…).")
        return self

    @model_validator(mode="after")
    def _cluster_is_complete(self) -> Settings:
        if not self.redis_use_cluster:
            if self.redis_url and len(servers_of(self.redis_url)) > 1:
                raise ValueError("RELIER_REDIS_URL names several servers, which needs RELIER_REDIS_USE_CLUSTER=true.")
            return self
        if self.redis_use_sentinel:
            raise ValueError("RELIER_REDIS_USE_CLUSTER and RELIER_REDIS_USE_SENTINEL exclude each other.")
        if self.redis_url is None or self.redis_url.startswith("unix"):
            raise ValueError("RELIER_REDIS_USE_CLUSTER needs RELIER_REDIS_URL (redis://host:port,host:port,…).")
        if urlsplit(self.redis_url).path.strip("/0"):
            raise ValueError("RELIER_REDIS_URL names a database, but a Redis Cluster has number 0 alone.")
        return self

    @model_validator(mode="after")
    def _broker_is_one_server(self) -> Settings:
        several = self.broker_url and self.broker_url.startswith(REDIS_SCHEMES) and len(servers_of(self.broker_url)) > 1
        if several and not (self.redis_use_cluster and self.broker_url == self.redis_url):
            raise ValueError(
                "RELIER_BROKER_URL names several servers: unset it for the store's Redis Cluster, or name one server."
            )
        return self

    @model_validator(mode="after")
    def _signatures_can_be_verified(self) -> Settings:
        if self.signing_required and self.signing_keys is None:
            raise ValueError("RELIER_SIGNING_REQUIRED=true needs RELIER_SIGNING_KEYS (name:secret,…).")
        return self


def _checked_url(url: str | None, schemes: tuple[str, ...]) -> str | None:
    if url is not None and (problem := url_problem(url, schemes)):
        raise ValueError(problem)
    return url


def parse_address(text: str, host_needed: bool = True) -> Address:
    """Return host ('' for none) and port. Raises `ValueError`."""
    match = _ADDRESS.match(text)
    if not match or (host_needed and not match["host"]) or not 0 < int(match["port"]) < 65_536:
        raise ValueError
    return match["host"].strip("[]"), int(match["port"])


def _is_cause(detail: ErrorDetails) -> bool:
    return detail["type"] != "default_factory_not_called"  # only says that another field failed


def _explain(detail: ErrorDetails) -> str:
    """Turn one of pydantic's findings into a line that names variable, value and what is expected."""
    own_text = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else ""
    if not detail["loc"]:
        return own_text or detail["msg"]
    name = str(detail["loc"][0])
    field = Settings.model_fields[name]
    extra = field.json_schema_extra
    finding = own_text or (f"expected {extra['expected']}" if isinstance(extra, dict) else detail["msg"])
    value = "***" if "SecretStr" in str(field.annotation) else repr(safe_url(detail["input"]))[:200]
    return f"{PREFIX}{name.upper()}={value}: {finding}."


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for each `RELIER_*` variable of environment and `.env` that is no setting."""
    known = [name.upper() for name in Settings.model_fields]
    present = dict.fromkeys(os.environ if environ is None else environ)
    if environ is None and Path(ENV_FILE).is_file():
        present.update(dict.fromkeys(dotenv_values(ENV_FILE)))
    names = sorted(name.upper().removeprefix(PREFIX) for name in present if name.upper().startswith(PREFIX))
    strangers = [name for name in names if name not in known and not name.startswith("TEST_")]
    return [f"Unknown variable {PREFIX}{name} is ignored{_did_you_mean(name, known, PREFIX)}" for name in strangers]


def _did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {prefix}{close[0]}?" if close else "."


@cache
def get_settings() -> Settings:
    """Return this process's settings, read on the first call. Raises `RelierConfigError`.

    Unknown `RELIER_*` variables are logged as warnings.
    """
    settings = Settings()
    for line in unknown_variables():
        logging.getLogger(__name__).warning("%s", line)
    return settings


def reset_settings() -> None:
    """Forget the cached settings, so that the next `get_settings` reads again (for tests)."""
    get_settings.cache_clear()

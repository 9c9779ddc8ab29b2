"""Failures are told apart: worth another try, never worth one, not known."""

from __future__ import annotations

import asyncio
import binascii
import configparser
import errno
import ftplib
import http.client
import json
import math
import os
import random
import smtplib
import socket
import sqlite3
import struct
import subprocess
import sys
import urllib.error
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import httpx
import pydantic
import pytest
import redis
import requests
import sqlalchemy
import urllib3
from dramatiq.errors import DecodeError, RateLimitExceeded, Retry
from dramatiq.middleware import Shutdown, TimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from relier import errors
from relier.failures import (
    MAX_RETRY_AFTER,
    Decision,
    FailureKind,
    RetryPolicy,
    classify,
    decide,
    retry_after,
)
from relier.store.verdicts import LONGEST

T, D, U = FailureKind.TRANSIENT, FailureKind.DETERMINISTIC, FailureKind.UNCLASSIFIED


def raised(call: Any, *args: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:
        call(*args)
    return caught.value


def foreign_class(module: str, name: str) -> type[Exception]:
    return type(name, (Exception,), {"__module__": module})


def foreign(module: str, name: str, *bases: type, **attributes: Any) -> BaseException:
    """Build an exception of a library that is not installed."""
    cls = type(name, bases or (Exception,), {"__module__": module, **attributes})
    error: BaseException = cls("it failed")
    return error


def rate_limited() -> BaseException:
    return RateLimitExceeded("limit")  # type: ignore[no-untyped-call]


def undecodable() -> BaseException:
    return DecodeError("undecodable", b"", None)  # type: ignore[no-untyped-call]


def http_error(status: int, headers: dict[str, str] | None = None) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers or {})
    return requests.HTTPError(response=response)


def answer(text: str) -> requests.Response:
    response = requests.Response()
    response._content = text.encode()
    return response


def http_status(status: int, headers: dict[str, str] | None = None) -> BaseException:
    response = httpx.Response(status, headers=headers, request=httpx.Request("GET", "http://x"))
    return raised(response.raise_for_status)


def environment_lookup() -> None:
    os.environ["RELIER_TEST_NO_SUCH_VARIABLE"]


def parse_number() -> None:
    pydantic.TypeAdapter(int).validate_python("no number")


def write_to_locked_database(folder: Path) -> None:
    one, two = (sqlite3.connect(folder / "db", timeout=0) for _ in range(2))
    try:
        one.execute("CREATE TABLE t (a)")
        one.execute("INSERT INTO t VALUES (1)")
        two.execute("INSERT INTO t VALUES (1)")
    finally:
        one.close()
        two.close()


@pytest.mark.parametrize(
    "exc",
    [
        ConnectionRefusedError(),
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
        OSError(errno.ETIMEDOUT, "timed out"),
        OSError(errno.EHOSTUNREACH, "no route"),
        socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"),
        asyncio.IncompleteReadError(b"", 3),
        urllib.error.URLError(ConnectionRefusedError()),
        urllib.error.HTTPError("http://x", 503, "busy", Message(), None),
        redis.ConnectionError(),
        redis.TimeoutError(),
        redis.BusyLoadingError(),
        redis.ReadOnlyError(),
        requests.ConnectionError(),
        requests.ReadTimeout(),
        http_error(429),
        http_error(503),
        foreign("httpx", "ConnectTimeout", type("TimeoutException", (Exception,), {"__module__": "httpx"})),
        foreign("openai", "RateLimitError", status_code=429),
        foreign("aiohttp.client_exceptions", "ClientResponseError", status=503),
        foreign(
            "botocore.exceptions",
            "ClientError",
            response={"ResponseMetadata": {"HTTPStatusCode": 503}},
        ),
        foreign("psycopg", "OperationalError", sqlstate=None),
        foreign("psycopg.errors", "DeadlockDetected", sqlstate="40P01"),
        foreign("asyncpg.exceptions", "SerializationError", sqlstate="40001"),
        foreign("sqlalchemy.exc", "TimeoutError"),
        foreign("pika.exceptions", "AMQPConnectionError"),
        http_status(429),
        http_status(503),
        raised(httpx.get, "http://127.0.0.1:1/"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        urllib3.exceptions.MaxRetryError(None, "/", ConnectionRefusedError()),  # type: ignore[arg-type]
        requests.exceptions.RetryError(),
        foreign(
            "aiohttp.client_exceptions", "ServerDisconnectedError", foreign_class("aiohttp", "ClientConnectionError")
        ),
        foreign("botocore.exceptions", "ClientError", response={"Error": {"Code": "ThrottlingException"}}),
        foreign("grpc", "RpcError", code=lambda self: SimpleNamespace(name="UNAVAILABLE")),
        foreign("sqlalchemy.exc", "InterfaceError", connection_invalidated=True),
        smtplib.SMTPServerDisconnected(),
        smtplib.SMTPSenderRefused(451, b"try again later", "me"),
        ftplib.error_temp("450 busy"),
        http.client.RemoteDisconnected("no answer"),
        foreign("tenacity", "RetryError", __cause__=ConnectionResetError()),
        rate_limited(),
        Retry("again"),
        errors.AdmissionRejectedError("shedding", 2.0),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_network_rate_limit_and_database_outages_are_transient(exc: BaseException) -> None:
    assert classify(exc) is T


@pytest.mark.parametrize(
    "exc",
    [
        raised(len, 3),
        raised(getattr, 3, "no_such_attribute"),
        NameError(),
        UnboundLocalError(),
        ModuleNotFoundError(),
        NotImplementedError(),
        raised(open, "/no/such/file"),
        raised(environment_lookup),
        raised(os.environ.pop, "RELIER_TEST_NO_SUCH_VARIABLE"),
        raised(json.loads, "{"),
        raised(exec, "1 +"),
        raised(ElementTree.fromstring, "<a>"),
        raised(struct.unpack, "i", b"x"),
        raised(configparser.ConfigParser().get, "no", "setting"),
        raised(httpx.Response(200, text="{").json),
        raised(answer("{").json),
        redis.DataError("Invalid input of type: 'NoneType'."),
        raised(b"\xff".decode, "utf-8"),
        raised("\ud800".encode, "utf-8"),
        raised(binascii.unhexlify, "x"),
        raised(parse_number),
        undecodable(),
        TimeLimitExceeded(),
        errors.HardTimeoutError("too long"),
        errors.SchemaMigrationError("no"),
        foreign("django.core.exceptions", "ImproperlyConfigured"),
        foreign("marshmallow.exceptions", "ValidationError", ValueError),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_bugs_missing_things_and_wrong_data_are_deterministic(exc: BaseException) -> None:
    assert classify(exc) is D


@pytest.mark.parametrize(
    "exc",
    [
        ValueError(),
        KeyError("user code"),
        raised({}.__getitem__, "k"),
        RuntimeError(),
        OSError(errno.ENOSPC, "disk full"),
        PermissionError(),
        ZeroDivisionError(),
        http_error(404),
        http_error(500),
        http_status(404),
        http_status(500),
        httpx.InvalidURL("no scheme"),
        requests.exceptions.SSLError(),
        urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.SSLError()),  # type: ignore[arg-type]
        smtplib.SMTPSenderRefused(550, b"no such user", "me"),
        foreign("botocore.exceptions", "ClientError", response={"Error": {"Code": "AccessDenied"}}),
        foreign("botocore.exceptions", "ClientError", response={"Error": {"Code": ["odd"]}}),
        foreign("grpc", "RpcError", code=lambda self: SimpleNamespace(name="INVALID_ARGUMENT")),
        foreign("grpc", "RpcError", code=lambda self: None),
        redis.AuthenticationError(),
        foreign("psycopg", "OperationalError", sqlstate="28P01"),
        foreign("sqlalchemy.exc", "StatementError", orig=ValueError()),
        urllib.error.URLError("unknown url type"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_everything_else_is_unclassified(exc: BaseException) -> None:
    assert classify(exc) is U


def test_a_locked_sqlite_database_is_transient_and_a_missing_table_is_not(tmp_path: Path) -> None:
    assert classify(raised(write_to_locked_database, tmp_path)) is T
    missing = raised(sqlite3.connect(":memory:").execute, "SELECT * FROM nowhere")
    assert classify(missing) is U


def test_a_database_wrapper_is_judged_by_what_it_wraps() -> None:
    assert classify(foreign("sqlalchemy.exc", "StatementError", orig=ConnectionResetError())) is T
    django = foreign("django.db.utils", "OperationalError")
    assert classify(django) is T
    django.__cause__ = foreign("psycopg", "OperationalError", sqlstate="28P01")
    assert classify(django) is U


def write_through_sqlalchemy(folder: Path) -> None:
    engines = [sqlalchemy.create_engine(f"sqlite:///{folder / 'db'}", connect_args={"timeout": 0}) for _ in range(2)]
    with engines[0].connect() as one, engines[1].connect() as two:
        one.execute(sqlalchemy.text("CREATE TABLE t (a)"))
        one.commit()
        one.execute(sqlalchemy.text("INSERT INTO t VALUES (1)"))
        two.execute(sqlalchemy.text("INSERT INTO t VALUES (1)"))


def query(statement: str) -> None:
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        connection.execute(sqlalchemy.text(statement))


def test_what_sqlalchemy_wraps_is_judged_by_itself(tmp_path: Path) -> None:
    """Both are an `OperationalError` of SQLAlchemy."""
    assert classify(raised(write_through_sqlalchemy, tmp_path)) is T
    assert classify(raised(query, "SELECT * FROM nowhere")) is U


@pytest.mark.parametrize(
    ("sqlstate", "kind"), [(None, T), ("08006", T), ("40P01", T), ("57P01", T), ("28P01", U), ("42P01", U)]
)
def test_a_psycopg_error_in_an_sqlalchemy_one_is_told_by_its_sqlstate(sqlstate: str | None, kind: FailureKind) -> None:
    driver: Any = foreign("psycopg", "OperationalError", sqlstate=sqlstate)
    assert classify(sqlalchemy.exc.OperationalError("SELECT 1", {}, driver)) is kind


def test_a_connection_that_sqlalchemy_lost_is_transient() -> None:
    driver: Any = foreign("psycopg2", "InterfaceError")
    assert classify(sqlalchemy.exc.InterfaceError("SELECT 1", {}, driver)) is U
    assert classify(sqlalchemy.exc.InterfaceError("SELECT 1", {}, driver, connection_invalidated=True)) is T


def test_a_group_is_transient_only_as_a_whole_and_hopeless_by_one_member() -> None:
    assert classify(ExceptionGroup("g", [ConnectionError(), TimeoutError()])) is T
    assert classify(ExceptionGroup("g", [ConnectionError(), ValueError()])) is U
    assert classify(ExceptionGroup("g", [ConnectionError(), TypeError()])) is D


def test_the_actors_declarations_win_and_the_closest_class_decides() -> None:
    class Shape(ValueError):
        pass

    assert classify(Shape(), deterministic=(Shape,)) is D
    assert classify(TypeError(), transient=(TypeError,)) is T
    assert classify(Shape(), transient=(ValueError,), deterministic=(Shape,)) is D
    assert classify(Shape(), transient=(Shape,), deterministic=(ValueError,)) is T
    assert classify(ExceptionGroup("g", [Shape()]), deterministic=(Shape,)) is D


def test_a_property_that_raises_does_not_disturb_classification() -> None:
    class Odd(ValueError):
        @property
        def response(self) -> object:
            raise RuntimeError("no response yet")

    assert classify(Odd()) is U
    assert retry_after(Odd()) is None


def test_retry_after_is_read_as_seconds_date_or_attribute() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after(http_error(429, {"retry-after": "7"})) == 7
    assert retry_after(http_error(503, {"Retry-After": format_datetime(now + timedelta(seconds=9))}), now=now) == 9
    assert retry_after(http_error(503, {"Retry-After": format_datetime(now - timedelta(days=1))}), now=now) == 0
    assert retry_after(http_error(503, {"Retry-After": "soon"})) is None
    assert retry_after(http_error(503, {"Retry-After": "-3"})) is None
    assert retry_after(errors.AdmissionRejectedError("shedding", 2.5)) == 2.5
    assert retry_after(http_status(429, {"retry-after": "8"})) == 8
    aiohttp = foreign("aiohttp", "ClientResponseError", status=503, headers={"Retry-After": "6"})
    assert retry_after(aiohttp) == 6
    lower = SimpleNamespace(status=503, headers={"retry-after": "4"})
    assert retry_after(foreign("x", "Busy", response=lower)) == 4
    assert retry_after(ValueError()) is None


def decisions(exc: BaseException, policy: RetryPolicy | None = None) -> list[Decision]:
    """Let a task fail until it is given up; the last decision is the final one."""
    made = [decide(exc, 0, policy)]
    while made[-1].retry and len(made) < 100:
        made.append(decide(exc, len(made), policy))
    return made


def test_a_transient_failure_is_retried_20_times_within_about_two_and_a_half_hours() -> None:
    made = decisions(ConnectionError())
    assert [d.retry for d in made] == [True] * 20 + [False]
    latest = sum(decide(ConnectionError(), n, chance=lambda: 1.0).delay_seconds for n in range(20))
    assert 2.25 * 3600 < latest < 2.75 * 3600
    assert made[-1].exhausted
    assert made[-1].reason == "ConnectionError"


def test_an_unclassified_failure_is_retried_5_times_from_5_seconds() -> None:
    made = decisions(ValueError())
    assert [d.retry for d in made] == [True] * 5 + [False]
    assert all(d.delay_seconds >= 5 for d in made[:-1])
    assert made[0].delay_seconds <= 10


@pytest.mark.parametrize(
    ("exc", "options", "limit"),
    [
        (ValueError(), {}, 3),
        (ValueError(), {"min_backoff": 1, "max_backoff": 2}, 3),
        (ValueError(), {"max_retries": 9}, 0),
        (ValueError(), {"max_retries": None}, 0),
        (ValueError(), {"retry_when": lambda retries, exc: True}, 0),
        (ValueError(), {"transient": ValueError}, 0),
        (ConnectionError(), {}, 0),
        (rate_limited(), {}, 0),
        (TypeError(), {"max_retries": 9}, 0),
        (Retry("again"), {}, 0),
    ],
)
def test_identical_failures_stop_only_what_is_unclassified_and_not_the_actors_decision(
    exc: BaseException, options: dict[str, Any], limit: int
) -> None:
    decision = decide(exc, 0, RetryPolicy.of(options))
    assert (decision.retry, decision.identical_limit) == (True, limit)


def test_a_deterministic_failure_is_never_retried() -> None:
    (only,) = decisions(TypeError())
    assert only == Decision(False, 0.0, "TypeError", D, exhausted=True)


def test_max_retries_wins_over_the_kind() -> None:
    assert len(decisions(ConnectionError(), RetryPolicy.of({"max_retries": 0}))) == 1
    assert len(decisions(TypeError(), RetryPolicy.of({"max_retries": 2}))) == 3
    assert len(decisions(ValueError(), RetryPolicy.of({"max_retries": None}))) == 100


def test_a_class_declared_deterministic_stays_so_next_to_max_retries() -> None:
    policy = RetryPolicy.of({"max_retries": 9, "deterministic": ValueError})
    assert len(decisions(ValueError(), policy)) == 1
    assert len(decisions(RuntimeError(), policy)) == 10


def test_backoff_options_alone_do_not_make_a_deterministic_failure_retry() -> None:
    assert not decide(TypeError(), 0, RetryPolicy.of({"min_backoff": 10, "max_backoff": 20})).retry


def test_throws_ends_the_task_and_is_not_exhaustion() -> None:
    decision = decide(ConnectionError(), 0, RetryPolicy.of({"throws": (OSError,), "max_retries": 5}))
    assert (decision.retry, decision.exhausted) == (False, False)


def test_retry_when_decides_alone() -> None:
    asked: list[int] = []

    def retry_when(retries: int, exc: BaseException) -> bool:
        asked.append(retries)
        return retries < 2

    policy = RetryPolicy.of({"retry_when": retry_when, "max_retries": 50})
    assert len(decisions(TypeError(), policy)) == 3
    assert asked == [0, 1, 2]


def test_a_retry_when_that_fails_leaves_the_default_policy() -> None:
    policy = RetryPolicy.of({"retry_when": lambda retries, exc: 1 / 0})
    assert len(decisions(ValueError(), policy)) == 6


def test_the_first_mapping_with_a_usable_value_decides_an_option() -> None:
    policy = RetryPolicy.of({"max_retries": "7", "min_backoff": 1}, {"max_retries": 3, "min_backoff": 2})
    assert (policy.max_retries, policy.min_backoff_ms) == (3, 1)


def test_retry_with_a_delay_is_honoured_in_milliseconds() -> None:
    assert decide(Retry("later", delay=1500), 0).delay_seconds == 1.5
    assert decide(Retry("later", delay=math.inf), 0).delay_seconds == LONGEST  # type: ignore[arg-type]
    assert 0 < decide(Retry("later", delay="soon"), 0).delay_seconds < 10  # type: ignore[arg-type]
    assert decide(Retry(), 0).retry


def test_a_rate_limit_is_not_counted_as_an_attempt() -> None:
    for attempt in (0, 3, 400):
        decision = decide(rate_limited(), attempt, RetryPolicy.of({"max_retries": 3}))
        assert decision.retry
        assert not decision.counts_attempt
        assert 1 <= decision.delay_seconds <= 10
    assert not decide(rate_limited(), 0, RetryPolicy.of({"max_retries": 0})).retry


def test_a_shutdown_is_neither_an_attempt_nor_a_delay() -> None:
    decision = decide(Shutdown(), 99)
    assert (decision.retry, decision.delay_seconds, decision.counts_attempt) == (True, 0.0, False)


def test_a_servers_retry_after_is_the_least_delay_within_bounds() -> None:
    asked = http_error(429, {"Retry-After": "1800"})
    assert 1800 <= decide(asked, 0).delay_seconds <= 1980
    assert decide(asked, 0, RetryPolicy.of({"max_backoff": 60_000})).delay_seconds <= 60
    forever = http_error(429, {"Retry-After": "99999999"})
    assert decide(forever, 0).delay_seconds == MAX_RETRY_AFTER


@given(
    attempt=st.integers(0, 10_000),
    least=st.none() | st.integers(0, 10**9),
    most=st.none() | st.integers(0, 10**9),
    chance=st.floats(0, 1),
)
def test_every_delay_lies_between_the_bounds(attempt: int, least: int | None, most: int | None, chance: float) -> None:
    options = {"max_retries": None, "min_backoff": least, "max_backoff": most}
    policy = RetryPolicy.of({name: v for name, v in options.items() if v is not None or name == "max_retries"})
    delay = decide(ConnectionError(), attempt, policy, chance=lambda: chance).delay_seconds
    lower = least / 1000 if least is not None else min(1.0, (most if most is not None else 1000) / 1000)
    upper = max(lower, most / 1000 if most is not None else 600.0)
    assert lower <= delay <= upper * 1.000001


@given(attempt=st.integers(0, 30), seed=st.integers())
def test_full_jitter_spreads_over_the_whole_range(attempt: int, seed: int) -> None:
    source = random.Random(seed)
    latest = decide(ConnectionError(), attempt, RetryPolicy(max_retries=None), chance=lambda: 1.0).delay_seconds
    for _ in range(20):
        got = decide(ConnectionError(), attempt, RetryPolicy(max_retries=None), chance=source.random)
        assert 1.0 <= got.delay_seconds <= latest


def test_no_library_is_imported_to_recognise_its_errors() -> None:
    libraries = {"requests", "httpx", "sqlalchemy", "urllib3", "aiohttp", "psycopg", "botocore", "grpc", "django"}
    code = f"import sys, relier.failures; print(sorted({libraries!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

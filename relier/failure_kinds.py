"""What kind of failure an exception is: worth another try, never worth one, or not known."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import CodeType
from typing import Any

from relier import errors

__all__ = ["ExceptionClasses", "FailureKind", "classify", "declared_kind", "retry_after"]


class FailureKind(StrEnum):
    """Decides how often and how soon a failed task is retried."""

    TRANSIENT = "transient"
    DETERMINISTIC = "deterministic"
    UNCLASSIFIED = "unclassified"


ExceptionClasses = tuple[type[BaseException], ...]

_T, _D, _U = FailureKind.TRANSIENT, FailureKind.DETERMINISTIC, FailureKind.UNCLASSIFIED

#: A server that answers so asks for another try later.
RETRY_STATUSES = (429, 503)

_BY_CLASS: dict[type[BaseException], FailureKind] = {
    TimeoutError: _T,
    ConnectionError: _T,
    socket.gaierror: _T,
    socket.herror: _T,
    ssl.SSLEOFError: _T,
    ssl.SSLZeroReturnError: _T,
    errors.AdmissionRejectedError: _T,
    errors.StoreUnavailableError: _T,
    errors.IdempotencyInFlightError: _T,
    TypeError: _D,
    AttributeError: _D,
    NameError: _D,
    ImportError: _D,
    NotImplementedError: _D,
    FileNotFoundError: _D,
    UnicodeError: _D,
    errors.PayloadIntegrityError: _D,
    errors.PayloadTooLargeError: _D,
    errors.SchemaMigrationError: _D,
    errors.CheckpointTooLargeError: _D,
    errors.HardTimeoutError: _D,
}

#: Classes of libraries that need not be installed, by the top-level module and the class's name.
_BY_NAME: dict[tuple[str, str], FailureKind] = {
    (module, name): kind
    for kind, module, names in (
        (_T, "dramatiq", "BrokerConnectionError RateLimitExceeded Retry"),
        (_T, "redis", "ConnectionError TimeoutError BusyLoadingError ReadOnlyError TryAgainError"),
        (_T, "redis", "ClusterDownError MasterDownError MaxConnectionsError"),
        (_T, "valkey", "ConnectionError TimeoutError BusyLoadingError ReadOnlyError TryAgainError"),
        (_T, "valkey", "ClusterDownError MasterDownError MaxConnectionsError"),
        (_T, "requests", "ConnectionError Timeout ChunkedEncodingError"),
        (_T, "urllib3", "TimeoutError ProtocolError NewConnectionError MaxRetryError ProxyError"),
        (_T, "httpx", "TimeoutException NetworkError RemoteProtocolError ProxyError"),
        (_T, "httpcore", "TimeoutException NetworkError RemoteProtocolError ProxyError"),
        (_T, "aiohttp", "ClientConnectionError ClientPayloadError"),
        (_T, "http", "IncompleteRead BadStatusLine"),
        (_T, "asyncio", "IncompleteReadError"),
        (_T, "botocore", "ConnectionError HTTPClientError"),
        (_T, "psycopg", "OperationalError"),
        (_T, "psycopg", "ConnectionTimeout"),
        (_T, "psycopg2", "OperationalError"),
        (_T, "psycopg_pool", "PoolTimeout TooManyRequests"),
        (_T, "asyncpg", "ConnectionDoesNotExistError ConnectionFailureError"),
        (_T, "sqlalchemy", "TimeoutError OperationalError DisconnectionError"),
        (_T, "django", "OperationalError"),
        (_T, "pymongo", "AutoReconnect ExecutionTimeout WaitQueueTimeoutError"),
        (_T, "pika", "AMQPConnectionError AMQPHeartbeatTimeout"),
        # Wrong credentials are a subclass of redis-py's connection error, but waiting does not cure them.
        (_U, "redis", "AuthenticationError AuthorizationError"),
        (_U, "valkey", "AuthenticationError AuthorizationError"),
        (_U, "requests", "SSLError"),
        (_D, "dramatiq", "TimeLimitExceeded DecodeError"),
        (_D, "json", "JSONDecodeError"),
        (_D, "simplejson", "JSONDecodeError"),
        (_D, "ujson", "JSONDecodeError"),
        (_D, "tomllib", "TOMLDecodeError"),
        (_D, "yaml", "YAMLError"),
        (_D, "binascii", "Error"),
        (_D, "pickle", "UnpicklingError"),
        (_D, "_pickle", "UnpicklingError"),
        (_D, "msgspec", "DecodeError ValidationError"),
        (_D, "pydantic", "ValidationError"),
        (_D, "pydantic_core", "ValidationError"),
        (_D, "pydantic_settings", "SettingsError"),
        (_D, "jsonschema", "ValidationError"),
        (_D, "marshmallow", "ValidationError"),
        (_D, "django", "ValidationError ImproperlyConfigured"),
        (_D, "environs", "EnvError"),
        (_D, "decouple", "UndefinedValueError"),
    )
    for name in names.split()
}

#: Network errors that Python gives no class of their own.
_NETWORK_ERRNOS = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH})
#: SQLSTATE classes: connection, transaction rollback (deadlock, serialization), resources, shutdown.
_TRANSIENT_SQLSTATES = ("08", "40", "53", "55P03", "57P01", "57P02", "57P03", "57P05")
#: SQLITE_BUSY and SQLITE_LOCKED.
_TRANSIENT_SQLITE_CODES = (5, 6)
#: MySQL: too many connections, lock wait timeout, deadlock, cannot connect, gone away, lost connection.
_TRANSIENT_MYSQL_CODES = (1040, 1205, 1213, 2002, 2003, 2006, 2013, 2055)
_MYSQL_MODULES = ("pymysql", "MySQLdb", "aiomysql", "asyncmy", "mysql")
#: Exceptions that only carry another one.
_WRAPPERS = {("urllib", "URLError"): "reason", ("sqlalchemy", "StatementError"): "orig"}

_ENVIRON_LOOKUP: CodeType = type(os.environ).__getitem__.__code__


def classify(
    exc: BaseException, *, transient: ExceptionClasses = (), deterministic: ExceptionClasses = ()
) -> FailureKind:
    """Return the kind of a failure.

    The actor's own declarations come first, the closest base class winning; then what the exception
    itself tells (HTTP status, SQLSTATE); then its classes, nearest first. Libraries are recognised by name.
    """
    kind = declared_kind(exc, transient=transient, deterministic=deterministic)
    if kind is not None:
        return kind
    if isinstance(exc, BaseExceptionGroup):
        members = [classify(e, transient=transient, deterministic=deterministic) for e in exc.exceptions]
        return _of_group(members) or _U
    return _by_details(exc) or _by_class(exc)


def declared_kind(
    exc: BaseException, *, transient: ExceptionClasses = (), deterministic: ExceptionClasses = ()
) -> FailureKind | None:
    """Return the kind that the actor itself declared for this exception, or None."""
    declared = dict.fromkeys(transient, _T) | dict.fromkeys(deterministic, _D)
    for cls in type(exc).__mro__:
        if cls in declared:
            return declared[cls]
    if isinstance(exc, BaseExceptionGroup):
        members = [declared_kind(e, transient=transient, deterministic=deterministic) for e in exc.exceptions]
        return _of_group(members)
    return None


def retry_after(exc: BaseException, *, now: datetime | None = None) -> float | None:
    """Return the seconds that the failing side asked to wait, or None.

    Reads a numeric `retry_after` attribute, or the `Retry-After` header (seconds or a date) of the response.
    """
    asked = _seconds(_get(exc, "retry_after"))
    if asked is not None:
        return asked
    for headers in _headers(exc):
        value = _get_header(headers, "Retry-After")
        if value is not None:
            return _seconds(value) if _seconds(value) is not None else _until(value, now or datetime.now(UTC))
    return None


def _of_group(kinds: Sequence[FailureKind | None]) -> FailureKind | None:
    """One member that can never succeed decides; else all must be worth another try."""
    if _D in kinds:
        return _D
    return _T if set(kinds) == {_T} else None


def _by_details(exc: BaseException) -> FailureKind | None:
    if _status(exc) in RETRY_STATUSES:
        return _T
    wrapped = _wrapped(exc)
    if wrapped is not None:
        return classify(wrapped)
    if isinstance(exc, KeyError) and _is_missing_variable(exc):
        return _D
    if isinstance(exc, OSError) and exc.errno in _NETWORK_ERRNOS:
        return _T
    return _by_database_code(exc)


def _by_class(exc: BaseException) -> FailureKind:
    for cls in type(exc).__mro__:
        kind = _BY_CLASS.get(cls) or _BY_NAME.get(_qualified(cls))
        if kind is not None:
            return kind
    return _U


def _qualified(cls: type) -> tuple[str, str]:
    return cls.__module__.partition(".")[0], cls.__name__


def _wrapped(exc: BaseException) -> BaseException | None:
    for cls in type(exc).__mro__:
        inner = _get(exc, _WRAPPERS.get(_qualified(cls), ""))
        if isinstance(inner, BaseException) and inner is not exc:
            return inner
        if cls.__module__ == "django.db.utils" and exc.__cause__ is not None:
            return exc.__cause__
    return None


def _by_database_code(exc: BaseException) -> FailureKind | None:
    state = _get(exc, "sqlstate") or _get(exc, "pgcode")
    if isinstance(state, str):
        return _T if state.startswith(_TRANSIENT_SQLSTATES) else _U
    code = _get(exc, "sqlite_errorcode")
    if isinstance(code, int):
        return _T if code & 0xFF in _TRANSIENT_SQLITE_CODES else _U
    if type(exc).__module__.partition(".")[0] in _MYSQL_MODULES and exc.args:
        return _T if exc.args[0] in _TRANSIENT_MYSQL_CODES else _U
    return None


def _is_missing_variable(exc: KeyError) -> bool:
    """Say whether the key was looked up in `os.environ`: its last frame is the mapping's own."""
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code is _ENVIRON_LOOKUP


def _status(exc: BaseException) -> int | None:
    response = _get(exc, "response")
    if isinstance(response, Mapping):  # botocore
        candidates = [_lookup(response, "ResponseMetadata", "HTTPStatusCode")]
    else:
        candidates = [_get(response, "status_code"), _get(response, "status")]
    candidates += [_get(exc, name) for name in ("status_code", "status", "code")]
    return next((code for code in candidates if isinstance(code, int)), None)


def _headers(exc: BaseException) -> Iterator[Any]:
    response = _get(exc, "response")
    if isinstance(response, Mapping):
        yield _lookup(response, "ResponseMetadata", "HTTPHeaders")
    yield _get(response, "headers")
    yield _get(exc, "headers")


def _get_header(headers: Any, name: str) -> Any:
    get = _get(headers, "get")
    try:
        return (get(name) or get(name.lower())) if callable(get) else None
    except Exception:
        return None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _until(value: Any, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(str(value))
    except (TypeError, ValueError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def _lookup(mapping: Any, *path: str) -> Any:
    for name in path:
        mapping = mapping.get(name) if isinstance(mapping, Mapping) else None
    return mapping


def _get(thing: Any, name: str) -> Any:
    """Read an attribute of a foreign object, whose properties may raise anything."""
    try:
        return getattr(thing, name, None) if name else None
    except Exception:
        return None

"""What kind of failure an exception is: worth another try, never worth one, or not known."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import CodeType
from typing import Any

from relier.known_failures import (
    BY_CLASS,
    BY_NAME,
    GRPC_CODES,
    MYSQL_MODULES,
    NETWORK_ERRNOS,
    RETRY_STATUSES,
    THROTTLES,
    TRANSIENT_MYSQL_CODES,
    TRANSIENT_SQLITE_CODES,
    TRANSIENT_SQLSTATES,
    WRAPPERS,
    FailureKind,
)

__all__ = ["ExceptionClasses", "FailureKind", "classify", "declared_kind", "retry_after"]

ExceptionClasses = tuple[type[BaseException], ...]

_T, _D, _U = FailureKind.TRANSIENT, FailureKind.DETERMINISTIC, FailureKind.UNCLASSIFIED

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
    if _status(exc) in RETRY_STATUSES or _asks_for_patience(exc):
        return _T
    wrapped = _wrapped(exc)
    if wrapped is not None:
        return classify(wrapped)
    if isinstance(exc, KeyError) and _is_missing_variable(exc):
        return _D
    if isinstance(exc, OSError) and exc.errno in NETWORK_ERRNOS:
        return _T
    return _by_database_code(exc)


def _asks_for_patience(exc: BaseException) -> bool:
    """Say whether a server or a driver tells in its own way that another try may succeed."""
    code = _lookup(_get(exc, "response"), "Error", "Code")
    if isinstance(code, str) and code in THROTTLES:
        return True
    if _get(exc, "connection_invalidated") is True:  # SQLAlchemy: the connection was lost, whatever the driver says.
        return True
    reply = _get(exc, "smtp_code")
    if isinstance(reply, int):
        return 400 <= reply < 500
    return (
        any(cls.__module__.partition(".")[0] == "grpc" for cls in type(exc).__mro__) and _grpc_code(exc) in GRPC_CODES
    )


def _grpc_code(exc: BaseException) -> str:
    try:
        return str(exc.code().name)  # type: ignore[attr-defined]
    except Exception:
        return ""


def _by_class(exc: BaseException) -> FailureKind:
    for cls in type(exc).__mro__:
        kind = BY_CLASS.get(cls) or BY_NAME.get(_qualified(cls))
        if kind is not None:
            return kind
    return _U


def _qualified(cls: type) -> tuple[str, str]:
    return cls.__module__.partition(".")[0], cls.__name__


def _wrapped(exc: BaseException) -> BaseException | None:
    for cls in type(exc).__mro__:
        inner = _get(exc, WRAPPERS.get(_qualified(cls), ""))
        if isinstance(inner, BaseException) and inner is not exc:
            return inner
        if cls.__module__ == "django.db.utils" and exc.__cause__ is not None:
            return exc.__cause__
    return None


def _by_database_code(exc: BaseException) -> FailureKind | None:
    state = _get(exc, "sqlstate") or _get(exc, "pgcode")
    if isinstance(state, str):
        return _T if state.startswith(TRANSIENT_SQLSTATES) else _U
    code = _get(exc, "sqlite_errorcode")
    if isinstance(code, int):
        return _T if code & 0xFF in TRANSIENT_SQLITE_CODES else _U
    if type(exc).__module__.partition(".")[0] in MYSQL_MODULES and exc.args:
        return _T if exc.args[0] in TRANSIENT_MYSQL_CODES else _U
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

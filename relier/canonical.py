"""One form of bytes for one value: what signatures, checksums and idempotency keys are computed from.

Equal JSON has equal bytes, whatever the order of its keys, and a value has the same bytes before it is encoded and
after it was decoded: tuples are lists. Numbers keep their kind: `1` and `1.0` differ, as they do for an actor.

Values that JSON lacks and other encoders may carry (bytes, dates, decimals, UUIDs, sets) have a form of their own,
which no JSON value has.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_DEPTH", "canonical_bytes"]

#: Deepest nesting. Python's own limit depends on the caller; a pipeline nests two levels for each of its stages.
MAX_DEPTH = 500

#: Python's JSON cannot read longer numbers back.
_MAX_DIGITS = 4300

_SCALARS = frozenset((str, int, float, bool, type(None)))

_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def canonical_bytes(value: Any, name: str = "value") -> bytes:
    """Return the bytes of a value.

    Raises `ValueError`, which names the place inside `name`, for what has no stable form: NaN and infinities, lone
    surrogates, keys that are no text, nesting deeper than `MAX_DEPTH`, whole numbers of more than 4300 digits, and
    objects that are neither JSON nor bytes, dates, times, decimals, UUIDs or sets.
    """
    try:
        if _is_json(value):
            return _encode(value).encode()
    except (ValueError, RecursionError):
        pass  # The other way is slow, and names the place.
    tree = _Tree()
    try:
        tagged = tree.of(value, name, 0)
        return b"\0" + _encode(tagged).encode() if tree.tagged else _encode(value).encode()
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply: the limit is {MAX_DEPTH} levels.") from None


def _is_json(value: Any) -> bool:
    """Whether a value can be written as JSON and be read back as it is, as far as types and nesting tell."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:  # Every push comes by here, so there is no function for what is inside.
            if isinstance(item, dict):
                for key in item:
                    if not isinstance(key, str):
                        return False
                below += [child for child in item.values() if type(child) not in _SCALARS]
            elif isinstance(item, list | tuple):
                below += [child for child in item if type(child) not in _SCALARS]
            elif not isinstance(item, str | int | float | None):
                return False
        if not below:
            return True
        level = below
    return False


class _Tree:
    """Builds the form of a value whose containers all tell their kind; knows the place of what has none."""

    def __init__(self) -> None:
        #: Whether something was found that JSON lacks.
        self.tagged = False

    def of(self, value: Any, place: str, depth: int) -> Any:
        if isinstance(value, str | int | float | None):
            return _scalar(value, place)
        if depth >= MAX_DEPTH:
            raise RecursionError
        if isinstance(value, dict | list | tuple):
            return self._container(value, place, depth)
        self.tagged = True
        if isinstance(value, set | frozenset):
            return ["set", sorted(_encode(self.of(v, f"{place}{{…}}", depth + 1)) for v in value)]
        if type(value) in _OTHERS:
            kind, write = _OTHERS[type(value)]
            return [kind, write(value)]
        raise ValueError(f"{place} is of type {type(value).__qualname__}, which has no stable form.")

    def _container(self, value: Any, place: str, depth: int) -> list[Any]:
        # Loops, since a comprehension would take another frame of Python's stack for each level.
        if isinstance(value, dict):
            items = {}
            for key, item in value.items():
                items[_key(key, place)] = self.of(item, f"{place}[{key!r}]", depth + 1)
            return ["dict", items]
        children = []
        for i, item in enumerate(value):
            children.append(self.of(item, f"{place}[{i}]", depth + 1))
        return ["list", children]


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{place} has the key {key!r} of type {type(key).__qualname__}: keys must be text.")
    return str(_scalar(key, f"the key {key!r} of {place}"))


def _scalar(value: Any, place: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place} is {float(value)!r}, which JSON lacks.")
    if isinstance(value, int) and value.bit_length() > _MAX_DIGITS * math.log2(10):
        raise ValueError(f"{place} is a whole number of more than {_MAX_DIGITS} digits.")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{place} contains a lone surrogate, which is no text.") from None
    return value


def _moment(value: datetime.datetime | datetime.time) -> list[Any]:
    zone = value.tzinfo
    if not (zone is None or isinstance(zone, datetime.timezone | zoneinfo.ZoneInfo)):
        raise ValueError(f"A time zone of type {type(zone).__qualname__} has no stable form.")
    return [value.isoformat(), value.fold, str(zone)]


#: How values that JSON lacks are written, besides sets.
_OTHERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("bytes", bytes.hex),
    bytearray: ("bytearray", bytearray.hex),
    datetime.datetime: ("datetime", _moment),
    datetime.time: ("time", _moment),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    decimal.Decimal: ("decimal", str),
    uuid.UUID: ("uuid", str),
}

"""Unpacks what the store's scripts packed: maps of numbers. Redis' cmsgpack is MessagePack without its newer types."""

from __future__ import annotations

import struct

#: Numbers by their first byte: how they are unpacked, and the bytes that they take after it.
_NUMBERS = {
    0xCA: (">f", 4),
    0xCB: (">d", 8),
    0xCC: (">B", 1),
    0xCD: (">H", 2),
    0xCE: (">I", 4),
    0xCF: (">Q", 8),
    0xD0: (">b", 1),
    0xD1: (">h", 2),
    0xD2: (">i", 4),
    0xD3: (">q", 8),
}
_UNPACK = {first: (struct.Struct(form).unpack_from, size) for first, (form, size) in _NUMBERS.items()}
#: Texts by their first byte: the bytes that their length takes.
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}

Code = int | str


def unpack_counts(raw: bytes) -> dict[Code, int]:
    """Return a map of codes and whole numbers. A table whose codes are 1, 2, … is packed as a list."""
    size, at = _head(raw, 0x80, 0xDE)
    if size < 0:
        return _listed(raw)
    found: dict[Code, int] = {}
    for _ in range(size):
        code, at = (raw[at], at + 1) if raw[at] < 0x80 else _value(raw, at)
        n, at = (raw[at], at + 1) if raw[at] < 0x80 else _value(raw, at)
        found[code if isinstance(code, str) else int(code)] = int(n)
    return found


def _listed(raw: bytes) -> dict[Code, int]:
    size, at = _head(raw, 0x90, 0xDC)
    if size < 0:
        raise ValueError(f"no map: it begins with {raw[0]:#x}")
    found: dict[Code, int] = {}
    for i in range(1, size + 1):
        n, at = _value(raw, at)
        found[i] = int(n)
    return found


def _head(raw: bytes, short: int, long: int) -> tuple[int, int]:
    """Return the size of a map or list and where its first entry is; a size of -1 when `raw` is another kind.

    Parameters:
      short: the first byte's upper half when its lower half is the size.
      long: the first byte when the size is in the next two; one more: in the next four.
    """
    first = raw[0]
    if first & 0xF0 == short:
        return first & 0x0F, 1
    if first in (long, long + 1):
        at = 3 if first == long else 5
        return int.from_bytes(raw[1:at], "big"), at
    return -1, 0


def _value(raw: bytes, at: int) -> tuple[Code | float, int]:
    """Return the number or text at a place, and the place after it."""
    first = raw[at]
    if first < 0x80:
        return first, at + 1
    if first in _UNPACK:
        unpack, size = _UNPACK[first]
        return unpack(raw, at + 1)[0], at + 1 + size
    if first & 0xE0 == 0xA0:
        begin, size = at + 1, first & 0x1F
    elif first in _TEXTS:
        begin = at + 1 + _TEXTS[first]
        size = int.from_bytes(raw[at + 1 : begin], "big")
    elif first >= 0xE0:
        return first - 0x100, at + 1
    else:
        raise ValueError(f"neither number nor text: it begins with {first:#x}")
    return raw[begin : begin + size].decode("utf-8", "replace"), begin + size

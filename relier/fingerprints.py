"""What makes two failures the same: actor, exception type, the application's frames, the text without its values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from types import TracebackType

from relier.application import is_application
from relier.hooks import text_of

__all__ = ["fingerprint", "normalised"]

#: Characters of a text that are read, and of what remains of it. Every pattern takes linear time, so that is a bound.
READ, KEPT = 16_384, 500
#: How many exceptions of a chain or a group make a difference.
EXCEPTIONS = 16

#: A quoted value; one whose end is missing goes as far as its line. An apostrophe within a word is no quote.
_QUOTED = re.compile(
    r"""(?<!\w)[bBrRuUfF]{0,2}(?:
        '(?:[^'\\\n]|\\.)*+(?:'|$|(?=\n)|\\)
      | "(?:[^"\\\n]|\\.)*+(?:"|$|(?=\n)|\\)
      | `[^`\n]*+`? | “[^”\n]*+”? | «[^»\n]*+»?
    )""",
    re.VERBOSE,
)
#: URLs, mail addresses and paths.
_PLACE = re.compile(r"(?<![\w/])(?:\w{1,20}://|[~.]{0,2}/)[^\s'\"<>,;)\]}]+")
#: What belongs together: a word, a number, an id, a date, a host and its port.
_TOKEN = re.compile(r"[\w.:@%/+\\-]+")
_VALUE = re.compile(r"[^\d@]*+[\d@]|[a-fA-F]{8,}$")
#: Values beside each other are one: a list may be longer the next time.
_LIST = re.compile(r"#(?:[\s,;:=|]+#)+")


def fingerprint(actor: str, exc: BaseException, module: str = "") -> str:
    """Return 16 hex digits that are equal for failures of an actor that differ in values only. Never raises.

    Line numbers do not count, nor do frames of libraries: what moved in a file, or was upgraded, fails the same as
    before. What was raised while another failure was handled carries that one with it, since wrappers tell little.
    `module`: where the actor's function is; its package is the application's even where it was installed.
    """
    try:
        parts = list(_parts(exc, module.partition(".")[0], iter(range(EXCEPTIONS))))
    except Exception:  # A foreign exception's properties may raise anything.
        parts = [type(exc).__name__]
    return hashlib.sha256("\0".join([actor, *parts]).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def normalised(text: str) -> str:
    """Return a text with numbers, ids, addresses and quoted values replaced by `#`; at most `KEPT` characters."""
    text = _PLACE.sub("#", _QUOTED.sub("#", text[:READ]))
    text = _LIST.sub("#", _TOKEN.sub(_value_or_word, text))
    return " ".join(text.split())[:KEPT]


def _value_or_word(found: re.Match[str]) -> str:
    return "#" if _VALUE.match(found[0]) else found[0]


def _parts(exc: BaseException, package: str, room: Iterator[int]) -> Iterator[str]:
    kind = type(exc)
    yield f"{kind.__module__}.{kind.__qualname__}"
    yield normalised(text_of(exc))
    yield from _frames(exc.__traceback__, package)
    if isinstance(exc, BaseExceptionGroup):
        yield from sorted(
            {"\1".join(_parts(member, package, room)) for member, _ in zip(exc.exceptions, room, strict=False)}
        )
    before = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if before is not None and next(room, None) is not None:
        yield "from"
        yield from _parts(before, package, room)


def _frames(traceback: TracebackType | None, package: str) -> list[str]:
    """Name the application's functions on the way to the failure, each once, and where it ended.

    Once, because how deep a recursion went is a value as well.
    """
    names: dict[str, None] = {}
    last = ""
    while traceback is not None:
        code, module = traceback.tb_frame.f_code, str(traceback.tb_frame.f_globals.get("__name__", ""))
        if is_application(code.co_filename, module, package):
            last = f"{module}:{code.co_qualname}"
            names[last] = None
        traceback = traceback.tb_next
    return [*names, last]

"""Which of the running code is the application's: not the interpreter's, a library's, or what brings tasks to it."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

__all__ = ["code_digest", "is_application"]

#: Packages that only bring a task to its code.
_RUNTIME = frozenset({"relier", "relier_cli", "dramatiq"})
_STANDARD_LIBRARY = tuple({f"{Path(sysconfig.get_path(name))}/" for name in ("stdlib", "platstdlib")})
_INSTALLED = ("/site-packages/", "/dist-packages/")


@lru_cache(maxsize=4096)
def is_application(file: str, module: str, own: str = "") -> bool:
    """Whether a module's code is the application's; `own` is a package that is, wherever it was installed."""
    package = module.partition(".")[0]
    if package in _RUNTIME or file.startswith("<frozen "):
        return False
    if any(part in file for part in _INSTALLED):
        return package == own
    return not file.startswith(_STANDARD_LIBRARY)


def code_digest(packages: Iterable[str] = ()) -> str:
    """Return a short name of the application's code as it was loaded: another one after every deploy that changed it.

    All of its modules count, since a fix is seldom in the actor itself. `packages`: those that are the application's
    although they were installed.
    """
    found = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and any(is_application(file, name, own) for own in ("", *packages)):
            found.update(f"{name}\0".encode("utf-8", "backslashreplace") + _source(file))
    return found.hexdigest()[:12]


def _source(file: str) -> bytes:
    try:
        return hashlib.sha256(Path(file).read_bytes()).digest()
    except OSError:  # In an archive.
        return file.encode("utf-8", "backslashreplace")

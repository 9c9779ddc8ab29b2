"""Loads the Lua operations: one file each, with the includes that it names joined in front."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    """One operation's source and the digest under which Redis caches it."""

    name: str
    source: str
    sha: str

    @cached_property
    def by_sha(self) -> tuple[str, str]:
        """What a command that runs it begins with. A script that only reads is sent so that reading rights suffice."""
        return ("EVALSHA_RO" if self._only_reads else "EVALSHA"), self.sha

    @property
    def by_source(self) -> tuple[str, str]:
        """The same when the server does not have it in its cache."""
        return ("EVAL_RO" if self._only_reads else "EVAL"), self.source

    @cached_property
    def _only_reads(self) -> bool:
        return "no-writes" in self.source.partition("\n")[0]


@cache
def script(name: str, package: str = "relier.store") -> Script:
    """Return the script `lua/<name>.lua` of a package with its includes joined in."""
    folder = files(package) / "lua"

    def join(match: re.Match[str]) -> str:
        return (folder / "include" / f"{match[1]}.lua").read_text("utf-8")

    source = _INCLUDE.sub(join, (folder / f"{name}.lua").read_text("utf-8"))
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


def load_all(package: str) -> None:
    """Read every script of a package now: an upgrade of the files must not mix versions in a running process."""
    for file in (files(package) / "lua").iterdir():
        if file.name.endswith(".lua"):
            script(file.name.removesuffix(".lua"), package)

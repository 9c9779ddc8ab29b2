"""The demo's work: count what is in the files of Python's standard library."""

from __future__ import annotations

import hashlib
import os
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

#: Folders inside the standard library's that are not part of it.
FOREIGN = {"site-packages", "dist-packages"}

#: What `tokenize` raises for files that are no valid Python: the library's tests contain some.
NOT_PYTHON = (SyntaxError, tokenize.TokenError, UnicodeError, ValueError)


@dataclass(frozen=True)
class FileFacts:
    """What is counted in one file."""

    sha256: str
    size: int
    lines: int
    tokens: dict[str, int]
    parsed: bool


@dataclass(frozen=True)
class Aggregate:
    """What is counted in all files together; each counts once, however often it was measured."""

    files: int
    bytes: int
    lines: int
    tokens: int
    not_parsed: int
    tokens_by_kind: dict[str, int] = field(repr=False)
    #: SHA-256 over the names and SHA-256s of all files, in order.
    digest: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def library_folder() -> Path:
    """Return the folder of this interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def library_files(folder: Path, limit: int | None = None) -> list[str]:
    """Return the readable `.py` files below a folder; with a limit, that many of them, spread evenly."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in FOREIGN]
        paths = (Path(where, name) for name in names if name.endswith(".py"))
        found += [str(path.relative_to(folder)) for path in paths if path.is_file() and os.access(path, os.R_OK)]
    found.sort()
    if limit is None or limit >= len(found):
        return found
    return [found[i * len(found) // limit] for i in range(limit)]


def measure(path: Path) -> FileFacts:
    """Measure one file; what cannot be tokenized is counted up to there."""
    data = path.read_bytes()
    kinds: Counter[int] = Counter()
    parsed = True
    try:
        for token in tokenize.tokenize(BytesIO(data).readline):
            kinds[token.type] += 1
    except NOT_PYTHON:
        parsed = False
    tokens = {tokenize.tok_name[kind]: count for kind, count in sorted(kinds.items())}
    return FileFacts(hashlib.sha256(data).hexdigest(), len(data), len(data.splitlines()), tokens, parsed)


def aggregate(measured: Mapping[str, FileFacts]) -> Aggregate:
    """Add up what was measured."""
    facts = measured.values()
    kinds: Counter[str] = Counter()
    for one in facts:
        kinds.update(one.tokens)
    return Aggregate(
        files=len(measured),
        bytes=sum(one.size for one in facts),
        lines=sum(one.lines for one in facts),
        tokens=kinds.total(),
        not_parsed=sum(not one.parsed for one in facts),
        tokens_by_kind=dict(sorted(kinds.items())),
        digest=_digest((name, measured[name].sha256) for name in sorted(measured)),
    )


def _digest(pairs: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for name, sha256 in pairs:
        digest.update(f"{sha256}  {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()

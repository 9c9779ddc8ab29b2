"""Reads and edits `.env`: one variable changes, every other line, comment and blank stays as it is."""

from __future__ import annotations

import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from relier.errors import RelierConfigError

#: What needs no quotes, for whoever reads the file: Dramatiq, a shell, systemd, Compose.
_BARE = re.compile(r"[\w./:,@%+=~&?*!-]+\Z")
#: A variable's lines. What is quoted may have line ends, and what looks like a comment.
_PARTS = re.compile(
    r"(?P<before>\s*(?:export[^\S\r\n]+)?)[^=]*=[^\S\r\n]*(?:'(?:\\'|[^'])*'|\"(?:\\\"|[^\"])*\"|[^\r\n]*?)"
    r"(?P<comment>[^\S\r\n]+#[^\r\n]*)?[^\S\r\n]*(?P<end>\r\n|\n|\r|\Z)"
)
#: Permissions of a file that holds a secret.
PRIVATE = 0o600


class EnvFile:
    """One `.env`; nothing is written before `save`.

    Parameters:
      path: where it is; a link is followed. It need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self.text = ""
        self.mode: int | None = None
        if self.path.exists():
            self.mode = stat.S_IMODE(self.path.stat().st_mode)
            self.text = self._decoded()

    def _decoded(self) -> str:
        try:
            return self.path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RelierConfigError(f"{self.path} cannot be read ({type(error).__name__}).") from None

    @property
    def is_public(self) -> bool:
        """Whether others than its owner may read it."""
        return self.mode is not None and bool(self.mode & 0o077)

    def get(self, name: str) -> str | None:
        """Return the value in effect, the last one; None when there is none. Names are compared without case."""
        return values(self.text).get(name.upper())

    def put(self, name: str, value: str) -> None:
        """Give a variable a value: in its line, else in a new last one. Raises `RelierConfigError`."""
        found = [binding for binding in self._bindings() if _names(binding, name)]
        if found:
            last = found[-1]
            self._rewrite(lambda binding: _renewed(binding, name, value) if binding is last else None, found)
        else:
            newline = "\r\n" if "\r\n" in self.text else "\n"
            gap = "" if not self.text or self.text.endswith("\n") else newline
            self.text += f"{gap}{name}={quoted(value)}{newline}"
        if self.get(name) != value:
            raise RelierConfigError(
                f"{name}: this value would be read as another one from {self.path.name}, which expands ${{…}}. Set it"
                " in the environment."
            )

    def drop(self, name: str) -> None:
        """Remove every line of a variable."""
        self._rewrite(lambda binding: "" if _names(binding, name) else None, self._bindings())

    def _bindings(self) -> list[Binding]:
        return list(parse_stream(io.StringIO(self.text)))

    def _rewrite(self, change: Callable[[Binding], str | None], bindings: list[Binding]) -> None:
        """Replace what some lines say; `change` returns None for what stays."""
        changed = {binding.original.line: text for binding in bindings if (text := change(binding)) is not None}
        self.text = "".join(changed.get(b.original.line, b.original.string) for b in self._bindings())

    def save(self, *, private: bool) -> int:
        """Write it, all or nothing, and return its permissions; `private`: only its owner may read it from now on.

        A new file is private in any case. Owner and permissions of one that is there stay otherwise.
        """
        mode = PRIVATE if private or self.mode is None else self.mode
        fresh = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as file:
                self._keep_owner(file.fileno())
                os.fchmod(file.fileno(), mode)
                file.write(self.text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except BaseException as error:
            fresh.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise RelierConfigError(f"{self.path} cannot be written: {error.strerror}.") from None
            raise
        return mode

    def _keep_owner(self, descriptor: int) -> None:
        if self.mode is None:
            return
        was, is_ = self.path.stat(), os.fstat(descriptor)
        if (was.st_uid, was.st_gid) != (is_.st_uid, is_.st_gid):
            os.fchown(descriptor, was.st_uid, was.st_gid)


@contextmanager
def edited_alone(path: Path) -> Iterator[None]:
    """Keep other commands from editing a `.env` meanwhile: of two that read it first, one would lose its change."""
    path = Path(os.path.realpath(path))
    try:
        folder = os.open(path.parent, os.O_RDONLY)  # The file itself is replaced.
    except OSError as error:
        raise RelierConfigError(f"{path} cannot be written: {error.strerror}.") from None
    try:
        with suppress(OSError):  # Some filesystems have no locks.
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def values(text: str) -> dict[str, str]:
    """Return what a `.env` says, as the settings read it: names in capitals; what is empty does not count."""
    found = dotenv_values(stream=io.StringIO(text))
    return {name.upper(): value for name, value in found.items() if value}


def quoted(value: str) -> str:
    """Return a value as it stands in the file: bare where that is safe, as not every reader takes quotes off."""
    if _BARE.match(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _names(binding: Binding, name: str) -> bool:
    return binding.key is not None and binding.key.upper() == name.upper()


def _renewed(binding: Binding, name: str, value: str) -> str:
    """Return a variable's line with another value; what is before the name and the comment behind stay."""
    parts = _PARTS.match(binding.original.string)
    before, comment, end = (parts["before"], parts["comment"], parts["end"]) if parts else ("", "", "\n")
    return f"{before}{name}={quoted(value)}{comment or ''}{end}"

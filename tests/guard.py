"""Process groups that must end with the test process, whatever that dies of."""

from __future__ import annotations

import atexit
import os
import subprocess
import threading

#: Reads `add` and `drop` lines; when their writer is gone, what was added and not dropped is killed.
_SCRIPT = """
groups=
while read -r word group; do
    case $word in
        add) groups="$groups $group" ;;
        drop)
            kept=
            for other in $groups; do [ "$other" = "$group" ] || kept="$kept $other"; done
            groups=$kept
            ;;
    esac
done
for group in $groups; do kill -9 "-$group"; done
"""

_lock = threading.Lock()
_guard: tuple[int, subprocess.Popen[bytes]] | None = None


def watch(group: int) -> None:
    """Kill this process group when this process dies."""
    _tell(f"add {group}\n")


def forget(group: int) -> None:
    """Leave it alone: it has ended, and its number may be given to another one."""
    _tell(f"drop {group}\n")


def _tell(line: str) -> None:
    with _lock:
        pipe = _running().stdin
        assert pipe
        pipe.write(line.encode())


def _running() -> subprocess.Popen[bytes]:
    global _guard  # noqa: PLW0603
    if _guard is None or _guard[0] != os.getpid():
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        _guard = (os.getpid(), guard)
        atexit.register(_end, guard)
    return _guard[1]


def _end(guard: subprocess.Popen[bytes]) -> None:
    if guard.stdin:
        guard.stdin.close()
    guard.wait()

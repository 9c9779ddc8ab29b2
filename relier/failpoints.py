"""Named points at which a process under test dies or stops. Off unless `RELIER_FAILPOINTS` is set.

Syntax: `name=action[:marker]`, separated by commas; the action is `kill` (SIGKILL) or `stop` (SIGSTOP). With a marker,
a path, the action happens once for all processes: in the one that creates the file.
"""

from __future__ import annotations

import os
import signal

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def _parse(text: str) -> dict[str, tuple[signal.Signals, str]]:
    points = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, what = part.partition("=")
        action, _, marker = what.partition(":")
        points[name] = (_SIGNALS[action], marker)
    return points


_points = _parse(os.environ.get("RELIER_FAILPOINTS", ""))


def hit(name: str) -> None:
    """Die or stop here if the environment says so."""
    if not _points or name not in _points:
        return
    number, marker = _points[name]
    if marker:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
    os.kill(os.getpid(), number)

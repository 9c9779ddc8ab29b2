"""Who else depends on a worker's process: whether it may end when it is drained, and who starts another one."""

from __future__ import annotations

import multiprocessing
import os
from enum import StrEnum

#: Set by `rl worker start` for its workers.
SUPERVISED_VARIABLE = "RL_SUPERVISED"


class Hosting(StrEnum):
    """How a worker's process was started."""

    SUPERVISED = "supervised"  #: by `rl worker start`, which starts another one
    ALONE = "alone"  #: by itself (`dramatiq -p 1`, `rl run-resurrector`): nobody here starts another one
    SHARED = "shared"  #: as one of several of a Dramatiq main process, which ends them all when one ends
    EMBEDDED = "embedded"  #: in a process of the application's, which is not ours to end


def find_hosting(role: str) -> Hosting:
    """Tell how this process was started; `role` is its role in the fleet."""
    if role == "resurrector":
        return Hosting.ALONE
    if multiprocessing.parent_process() is None:
        return Hosting.EMBEDDED
    if os.environ.get(SUPERVISED_VARIABLE):
        return Hosting.SUPERVISED
    return Hosting.ALONE if _siblings() == 0 else Hosting.SHARED


def _siblings() -> int:
    """Return how many other worker processes Dramatiq's main process has, by the command line that we share with it."""
    from dramatiq.cli import make_argument_parser

    try:
        found, _ = make_argument_parser().parse_known_args()  # type: ignore[no-untyped-call]
    except SystemExit:  # Not Dramatiq's command line.
        return 1
    return int(found.processes) - 1

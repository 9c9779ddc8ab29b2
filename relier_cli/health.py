"""Health of the processes of one host, for the probes of containers: `rl worker status --me`."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

#: States of a process that nobody needs to restart.
WELL = frozenset({"alive", "draining", "drained"})


class Process(Protocol):
    """What a probe looks at."""

    @property
    def id(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def state(self) -> str: ...


P = TypeVar("P", bound=Process)


def here(processes: Iterable[P]) -> list[P]:
    """Return the processes of this host; those of an earlier life of it that are being buried are none."""
    name = socket.gethostname()
    return [process for process in processes if process.host == name and process.state != "gone"]


def ails(processes: Sequence[Process]) -> str:
    """Return what is wrong with a host that has these processes; '' when nothing is."""
    if not processes:
        return f"No process of this host ({socket.gethostname()}) is registered."
    ill = [process for process in processes if process.state not in WELL]
    return "; ".join(f"{process.id} is {process.state}" for process in ill)

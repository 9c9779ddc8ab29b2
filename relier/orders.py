"""Orders from outside to go out of service: `rl worker drain` and `rl worker restart`, over the control channel."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

from relier.drain import Drain
from relier.ending import DRAINED
from relier.hosting import Hosting
from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

#: Where a drained worker's process ends; elsewhere it stays, idle.
ENDS = frozenset({Hosting.SUPERVISED, Hosting.ALONE})


def obey(process: WorkerProcess, drain: Drain) -> None:
    """Let this worker be drained and restarted from outside. It acknowledges by its state in the fleet."""

    def order(message: dict[str, Any]) -> None:
        what = str(message.get("type"))
        logger.warning("Asked to %s.", what, extra={"by": message.get("by")})
        if process.hosting is Hosting.SUPERVISED and what == "drain":
            drain.exit_code = drain.exit_code or DRAINED
        drain.begin()
        if process.hosting in ENDS:
            threading.Thread(target=_end_when_drained, args=(process, drain), daemon=True).start()

    for what in ("drain", "restart"):
        process.on(what, order)


def _end_when_drained(process: WorkerProcess, drain: Drain) -> None:
    """End by Dramatiq's main process, which would take an end of ours alone for a crash; it passes SIGTERM on to us."""
    drain.drained.wait()
    os.kill(os.getppid() if process.role == "worker" else os.getpid(), signal.SIGTERM)

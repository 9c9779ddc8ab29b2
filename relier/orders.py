"""Orders from outside to go out of service: `rl worker drain` and `rl worker restart`, over the control channel."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from typing import Any

from relier.drain import Drain
from relier.ending import DRAINED, RESTARTED
from relier.hosting import Hosting
from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

#: Where a drained worker's process ends; elsewhere it stays, idle.
ENDS = frozenset({Hosting.SUPERVISED, Hosting.ALONE})


#: Exit codes by which a supervisor knows what was asked for.
CODES = {"drain": DRAINED, "restart": RESTARTED}


def obey(process: WorkerProcess, drain: Drain) -> None:
    """Let this worker be drained and restarted from outside. It acknowledges by its state in the fleet."""

    asked = threading.Event()

    def order(message: dict[str, Any]) -> None:
        what = str(message.get("type"))
        logger.warning("Asked to %s.", what, extra={"by": message.get("by")})
        drain.begin()
        if process.hosting is Hosting.SUPERVISED:
            drain.exit_code = CODES[what]
        if process.hosting in ENDS and not asked.is_set():
            asked.set()
            threading.Thread(target=_end_when_drained, args=(process, drain), daemon=True).start()

    for kind in CODES:
        process.on(kind, order)


def _end_when_drained(process: WorkerProcess, drain: Drain) -> None:
    """End by Dramatiq's main process, which would take an end of ours alone for a crash; it passes SIGTERM on to us."""
    drain.drained.wait()
    main = multiprocessing.parent_process()
    if process.role != "worker":
        os.kill(os.getpid(), signal.SIGTERM)
    elif main is not None and main.pid == os.getppid():  # Else it is gone, and this worker ends anyhow.
        os.kill(os.getppid(), signal.SIGTERM)

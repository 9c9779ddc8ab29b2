"""Processes that user code forks off a worker: they must not act for it.

A forked child has no thread of ours, so it never beats, settles or acknowledges. Its copies of sockets are closed where
they are made (`os.register_at_fork`), so that the worker's death shows although the child lives on.
"""

from __future__ import annotations

import os
import sys

from relier.logging import get_logger

log = get_logger(__name__)


def end_forked_child(worker: int) -> None:
    """End this process if it is not `worker`: a child that the task forked comes back from user code with its run.

    Called while an error of user code passes, or none. What `sys.exit` says is the exit code; another error gives 1.
    """
    if os.getpid() == worker:
        return
    error = sys.exception()
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        log.error("A process that a task forked failed.", exc_info=error)
    os._exit(code & 0xFF)

"""What a process tells the fleet of itself: who it is, what it consumes, which actors it has."""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from relier import __version__
from relier.checkpoint_files import CheckpointFiles
from relier.knowledge import actors_of, digest
from relier.objectives import objectives_of
from relier.parking import code_of
from relier.store.connection import UNAVAILABLE

if TYPE_CHECKING:
    from relier.process import WorkerProcess

logger = logging.getLogger(__name__)


class Registration:
    """Registers one process, and again whenever there is something new to tell.

    Parameters:
      process: the one that is told of.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self.queues: tuple[str, ...] = ()
        self.threads = 0
        #: What it has told of its actors: the newest payload version of each.
        self._actors: dict[str, int] = {}
        self._code = ""
        self._started_at = time.time()

    @property
    def is_outdated(self) -> bool:
        """Whether actors were declared that the fleet does not know of."""
        return actors_of(self._process.broker) != self._actors

    @property
    def code(self) -> str:
        """Names the application's code, when it may come to be parked; else ''."""
        self._code = self._code or code_of(self._process.broker, self._process.settings)
        return self._code

    def register(self, identity: str) -> bool:
        """Tell it all under an identity; returns False when that was declared dead."""
        actors = actors_of(self._process.broker)
        registered = self._process.store.fleet.register(
            identity, self._told(actors), actors, objectives_of(self._process.broker)
        )
        self._actors = actors  # Not before: else nobody would tell again what the store did not hear.
        return registered

    def also_consumes(self, queue: str) -> None:
        """Note that this process consumes a queue that was declared after its start."""
        if queue not in self.queues:
            self.queues = (*self.queues, queue)
            self.tell()

    def tell(self) -> None:
        """Tell the fleet what this process consumes and which actors it has now."""
        process, identity = self._process, self._process.identity
        if process.is_stopping:
            return
        try:
            if not self.register(identity) and not process.is_stopping:
                process.refence(identity)
        except UNAVAILABLE:
            self._actors = {}  # The next beat tells it: a queue may be new as well.
            logger.debug("The fleet does not know yet of a queue or an actor.")

    def _told(self, actors: dict[str, int]) -> dict[str, Any]:
        process = self._process
        return {
            "role": process.role,
            "state": process.state,
            "hosting": process.hosting,
            "grace": process.settings.graceful_shutdown_timeout,
            "host": socket.gethostname(),
            "pid": process.pid,
            "queues": list(self.queues),
            "threads": self.threads,
            "broker": asdict(process.place),
            "broker_id": process.adapter.broker_id,
            "version": __version__,
            "started_at": self._started_at,
            "actors": digest(actors),
            "code": self.code,
            "subscribed": process.control.subscribed_as == process.identity,
            "checkpoints": self._checkpoints(),
            "chaos": process.takes_chaos,
        }

    def _checkpoints(self) -> str:
        """Tell for `rl doctor` which folder of checkpoints this process sees: inline, unused, shared or apart."""
        settings = self._process.settings
        if settings.checkpoint_backend != "filesystem":
            return "inline"
        return CheckpointFiles(settings.checkpoint_dir, self._process.store.fleet.checkpoint_folder).standing()

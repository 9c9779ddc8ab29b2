from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from dramatiq import Message

from relier.brokers.rejected import refused
from relier.errors import PayloadIntegrityError
from relier.hooks import encode_failure
from relier.store import Failure, Sending, Store, shard_of
from tests import processes


@dataclass
class CommandLine:
    """`rl` in a folder of its own, on one store; `more` settings, by name, where the URL does not tell all."""

    folder: Path
    url: str
    more: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        return processes.rl(self.folder, *arguments, **{"redis_url": self.url, **self.more, **variables})

    def json(self, *arguments: str, **variables: str | None) -> Any:
        return processes.rl_json(self.folder, *arguments, **{"redis_url": self.url, **self.more, **variables})


class Tasks:
    """Brings tasks into each state, as a worker named `w1` does."""

    worker = "w1"

    def __init__(self, store: Store) -> None:
        self.store = store

    def message(self, *args: Any, queue: str = "default", actor: str = "work") -> Sending:
        message = Message[Any](queue_name=queue, actor_name=actor, args=args, kwargs={"deep": True}, options={})
        return Sending(message.message_id, shard_of(message.message_id), queue, actor, message.encode())

    def running(self, *args: Any, queue: str = "default") -> tuple[Sending, int]:
        sending = self.message(*args, queue=queue)
        claim = self.store.tasks.claim(self.worker, sending, b"n", 0, slot_free=True)
        return sending, claim.fence

    def completed(self) -> Sending:
        sending, fence = self.running()
        assert self.store.tasks.commit(self.worker, sending, fence, hooks=False)
        return sending

    def scheduled(self, delay: float = 600.0, queue: str = "default", payload_version: int = 1) -> Sending:
        sending = replace(self.message(queue=queue), payload_version=payload_version)
        assert self.store.tasks.schedule(sending, delay)
        return sending

    def discarded(self) -> Sending:
        sending, fence = self.running()
        assert self.store.tasks.discard(self.worker, sending, fence, "skipped")
        return sending

    def dead(self, *args: Any, reason: str = "ValueError", error: Exception | None = None) -> Sending:
        sending, fence = self.running(*args)
        encoded = encode_failure(error or ValueError("no such thing"))
        failure = Failure(False, 0.0, True, False, reason, encoded, "ValueError: no such thing")
        assert self.store.tasks.fail(self.worker, sending, fence, failure) == "dead"
        return sending

    def refused(self, text: str, *args: Any) -> Sending:
        """A message that is not what a producer sent."""
        message = Message[Any](queue_name="default", actor_name="work", args=args, kwargs={}, options={})
        letter, failure = refused(message, message.encode(), PayloadIntegrityError(text))
        assert self.store.tasks.dead_letter(letter, "PayloadIntegrityError", failure)
        return letter


@pytest.fixture
def tasks(store: Store) -> Tasks:
    store.fleet.register(Tasks.worker, {"role": "worker", "host": "here", "pid": 1, "queues": ["default"]})
    return Tasks(store)


@pytest.fixture
def rl(store_url: str, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, store_url)

"""A small shop in which the documented commands make sense: its actors, its tasks under the ids that the pages name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dramatiq import Message

from relier.envelope import OPTION, Fresh, Stamp
from relier.hooks import encode_failure
from relier.integrity import Integrity
from relier.store import Failure, Sending, Store, shard_of

#: The ids of the pages, by what their tasks do there.
DEAD = "31c21133-ae5d-4e09-b402-b06efdf86b49"
RUNNING = ("c5278dd8-078b-4361-864d-7841200734f1", "a69acdfd-08e5-40fc-8d4e-c0055c380fd2")
SCHEDULED = "ed688646-ab54-4894-8c57-566d099d51a9"

#: Packages in which the pages put actors.
MODULES = ("tasks", "my_app.tasks", "shop.tasks")

ACTORS = """
import time
from relier import SchemaRegistry, rl_actor

@rl_actor
def resize(name): time.sleep(600)

@rl_actor(schema_version=2)
def charge(order): pass

@SchemaRegistry.register_migration("charge", 1)
def with_an_amount(order): return {"order": {"amount": 0, **order}}

@rl_actor(queue="low_priority")
def remind(): pass

@rl_actor
def send_mail(to): pass

@rl_actor
def mail(to): pass
"""

#: Who runs the shop's tasks as long as no real worker does.
_WORKER, _KILLED = "vm:31622:e64d63af", "vm:31623:4f107a7e"


class Shop:
    """Fill a store and a folder.

    Parameters:
      store: is empty.
      folder: where the commands run.
      attended: whether a worker has registered.
    """

    def __init__(self, store: Store, folder: Path, *, attended: bool) -> None:
        self.store = store
        for module in MODULES:
            path = folder / (module.replace(".", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(ACTORS)
        if attended:
            store.fleet.register(
                _WORKER, {"role": "worker", "host": "vm", "pid": 31622, "queues": ["default", "low_priority"]}
            )
        self._run_again(self._sending(RUNNING[0], "resize", "cat.jpg"))
        self._claim(self._sending(RUNNING[1], "resize", "dog.jpg"))
        self._die(self._sending(DEAD, "charge", {"id": 17}))
        assert store.tasks.schedule(self._sending(SCHEDULED, "remind", queue="low_priority"), 600.0)

    def _sending(self, task_id: str, actor: str, *args: Any, queue: str = "default") -> Sending:
        stamp = Stamp(task_id, shard_of(task_id))
        message = Message[Any](queue, actor, args, {}, {OPTION: Fresh(stamp.option())}, message_id=task_id)
        Integrity().seal(message)
        return Sending(stamp.task_id, stamp.shard, queue, actor, message.encode())

    def _run_again(self, sending: Sending) -> None:
        """Let a task run in a worker that dies, and in another one."""
        tasks = self.store.tasks
        tasks.claim(_KILLED, sending, b"n", 0, slot_free=True)
        tasks.bury(_KILLED, [sending.shard], "crash")
        _, (due,) = tasks.due([sending.shard], 1)
        tasks.mark_published([due], 30.0, 30.0)
        tasks.claim(_WORKER, sending, b"m", due.fence, slot_free=True)

    def _claim(self, sending: Sending) -> int:
        return self.store.tasks.claim(_WORKER, sending, b"n", 0, slot_free=True).fence

    def _die(self, sending: Sending) -> None:
        error = TypeError("order 17 has no amount")
        text = f"TypeError: {error}"
        failure = Failure(False, 0.0, True, False, "TypeError", encode_failure(error), text, "7c1a0f2be94d3310")
        assert self.store.tasks.fail(_WORKER, sending, self._claim(sending), failure) == "dead"

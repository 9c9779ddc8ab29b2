"""The stamp on a task's messages: who it is, where its record is, under which fence a copy was published."""

from __future__ import annotations

import copy
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dramatiq.message import Message

from relier.store import SHARDS, Due, Suspicion, shard_of

#: The message option that holds the stamp.
OPTION = "relier"

#: Version of the stamp's format.
FORMAT = 1


class Fresh(dict[str, Any]):
    """The stamp of a message that this process vouches for: it is sealed when it is sent.

    Only in memory: what was encoded and decoded again is an ordinary stamp, whatever the encoder.
    """

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def __copy__(self) -> Fresh:
        return Fresh(self)

    def __deepcopy__(self, memo: Any) -> Fresh:
        return Fresh({name: copy.deepcopy(value, memo) for name, value in self.items()})


#: Fences are server times in microseconds, or a little more. Lua cannot count beyond 2**53, and one that is presented
#: raises all that follow in its shard.
HIGHEST_FENCE = 3 << 51

#: How many message ids a process remembers to have enqueued first-hand.
REMEMBERED = 20_000

#: Message ids that were enqueued first-hand, oldest first.
_sent: dict[str, None] = {}


def _sent_before(message_id: str) -> bool:
    if message_id in _sent:
        return True
    _sent[message_id] = None
    if len(_sent) > REMEMBERED:
        _sent.pop(next(iter(_sent)), None)
    return False


@dataclass(frozen=True, slots=True)
class Stamp:
    """What identifies a task on every copy of its message."""

    task_id: str
    shard: int
    fence: int = 0  #: 0 on first-hand copies; the record's fence on copies that the store published
    payload_version: int = 1
    #: When it was enqueued, as far as its producer knows the server's time; of an unstamped message when it was made.
    created_ms: int = 0
    follow_up: bool = False  #: enqueued by a hook, so a replay may enqueue it again
    suspicion: Suspicion = Suspicion.NONE  #: how alone its crashes make it run
    queue: str = ""  #: the task's own queue, on a copy that the recovery queue carries
    key: str = ""  #: the digest of its idempotency key, which also decided its shard
    job: str = ""  #: the same of its job key
    rank: int = 0  #: on a first-hand copy with a job key: what its push got from the store; the newest has the highest

    def option(self) -> dict[str, Any]:
        """Return the stamp as the message option; what is usual is left out."""
        option: dict[str, Any] = {"v": FORMAT, "id": self.task_id, "s": self.shard, "t": self.created_ms}
        if self.fence:
            option["f"] = self.fence
        if self.payload_version != 1:
            option["p"] = self.payload_version
        if self.follow_up:
            option["d"] = 1
        if self.suspicion:
            option["c"] = int(self.suspicion)
        if self.queue:
            option["q"] = self.queue
        if self.key:
            option["k"] = self.key
        if self.job:
            option["j"] = self.job
        if self.rank:
            option["n"] = self.rank
        return option


def stamp_of(message: Any) -> Stamp:
    """Return a message's stamp; for an unstamped or malformed one, what its message id says."""
    kept = message.__dict__
    stamp: Stamp | None = kept.get("stamp")
    if stamp is None:
        stamp = parsed(message.options.get(OPTION))
        if stamp is None:
            stamp = Stamp(message.message_id, shard_of(message.message_id), created_ms=message.message_timestamp)
        if "stamp" in kept:  # A delivery of ours keeps it.
            kept["stamp"] = stamp
    return stamp


def is_text(value: Any) -> bool:
    """Whether it is a text that can be sent on: JSON may hold half of a character."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def parsed(option: Any) -> Stamp | None:
    """Return the stamp that a message option holds; None for a malformed one."""
    if not isinstance(option, dict):
        return None
    task_id, shard, fence = option.get("id"), option.get("s"), option.get("f", 0)
    version, created, queue = option.get("p", 1), option.get("t", 0), option.get("q", "")
    if not (is_text(task_id) and task_id and isinstance(shard, int) and 0 <= shard < SHARDS):
        return None
    if not (
        isinstance(fence, int) and 0 <= fence <= HIGHEST_FENCE and isinstance(version, int) and isinstance(created, int)
    ):
        return None
    key, job, rank = option.get("k", ""), option.get("j", ""), option.get("n", 0)
    if not (is_text(queue) and is_text(key) and is_text(job) and isinstance(rank, int)):
        return None
    rank = max(0, min(rank, HIGHEST_FENCE))
    suspicion = _suspicion(option.get("c"))
    return Stamp(task_id, shard, fence, version, created, bool(option.get("d")), suspicion, queue, key, job, rank)


def _suspicion(value: Any) -> Suspicion:
    """Read how alone a copy has to run; what a newer version may write means: as alone as can be."""
    return Suspicion.NONE if not value else Suspicion.SUSPECT if value == 1 else Suspicion.LAST


def stamped(message: Message[Any], stamp: Stamp, *, fresh: bool = False) -> Message[Any]:
    """Return a copy of the message that carries the stamp; a `fresh` one is sealed when it is sent."""
    option = stamp.option()
    return _with_option(message, Fresh(option) if fresh else option)


def is_stamped(message: Message[Any]) -> bool:
    """Whether a message is a task already; a follow-up that waits in its parent's options may know its version only."""
    option = message.options.get(OPTION)
    return option is not None and not (isinstance(option, dict) and set(option) == {"p"})


def version_of(message: Any) -> int:
    """Return the payload version that a message was stamped with: what says nothing has the first."""
    option = message.options.get(OPTION)
    version = option.get("p", 1) if isinstance(option, dict) else 1
    return version if isinstance(version, int) else 1


def stamp_first_hand(
    message: Message[Any],
    payload_version: int = 1,
    key: str = "",
    *,
    job: str = "",
    fresh: bool = True,
    enqueued_ms: int = 0,
) -> Message[Any]:
    """Return a stamped copy of a message that is enqueued for the first time; `fresh`: this process vouches for it.

    `enqueued_ms`: when that is, on the server's clock; 0: when the message was made.

    The task id is the message id. When this process enqueued the same message before (`pipeline.run()` or `group.run()`
    twice), it gets a suffix, so that the second one is a task of its own.
    """
    task_id = message.message_id
    if _sent_before(task_id):
        task_id = f"{task_id}~{secrets.token_hex(4)}"
    # As `Stamp.option` writes it; every push comes by here.
    shard, created = shard_of(job or key or task_id), enqueued_ms or message.message_timestamp
    option = {"v": FORMAT, "id": task_id, "s": shard, "t": created}
    if payload_version != 1:
        option["p"] = payload_version
    if key:
        option["k"] = key
    if job:
        option["j"] = job
    return _with_option(message, Fresh(option) if fresh else option)


def _with_option(message: Message[Any], option: dict[str, Any]) -> Message[Any]:
    """Return a copy with another stamp; `Message.copy` takes twice the time."""
    return Message(
        message.queue_name,
        message.actor_name,
        message.args,
        message.kwargs,
        {**message.options, OPTION: option},
        message.message_id,
        message.message_timestamp,
    )


def stamp_again(
    message: Message[Any], key: str = "", *, job: str = "", fresh: bool = True, enqueued_ms: int = 0
) -> Message[Any]:
    """Return a copy of a stamped message that is a task of its own.

    `enqueued_ms`: when it is enqueued, on the server's clock; 0: it is as old as the one that it goes on with.
    """
    stamp = stamp_of(message)
    task_id = f"{message.message_id}~{secrets.token_hex(4)}"
    own = Stamp(
        task_id,
        shard_of(job or key or task_id),
        payload_version=stamp.payload_version,
        created_ms=enqueued_ms or stamp.created_ms,
        key=key,
        job=job,
    )
    return stamped(message, own, fresh=fresh)


_keeping = threading.local()


@contextmanager
def keeping_stamps() -> Iterator[None]:
    """Let this thread enqueue further copies of tasks, under their stamps."""
    before, _keeping.on = keeps_stamps(), True
    try:
        yield
    finally:
        _keeping.on = before


def keeps_stamps() -> bool:
    """Whether what this thread enqueues are copies of tasks that exist."""
    return getattr(_keeping, "on", False)


def stamp_follow_up(
    message: Message[Any],
    parent: Stamp,
    payload_version: int = 1,
    key: str = "",
    *,
    job: str = "",
    fresh: bool = True,
    enqueued_ms: int = 0,
) -> Message[Any]:
    """Return a stamped copy of a message that a hook of `parent` enqueues; the same task at every replay (R7).

    `enqueued_ms`: when that is, on the server's clock; 0: when the message was made.
    """
    suffix = parent.task_id.partition("~")[2]
    task_id = f"{message.message_id}~{suffix}" if suffix else message.message_id
    shard, created = shard_of(job or key or task_id), enqueued_ms or message.message_timestamp
    stamp = Stamp(task_id, shard, 0, payload_version, created, follow_up=True, key=key, job=job)
    return stamped(message, stamp, fresh=fresh)


def republished(message: Message[Any], due: Due, queue: str) -> Message[Any]:
    """Return the copy that the store publishes under the record's fence, to be carried by `queue`."""
    own = due.queue if queue != due.queue else ""
    stamp = replace(stamp_of(message), fence=due.fence, suspicion=due.suspicion, queue=own, rank=0)
    options = {key: value for key, value in message.options.items() if key not in ("eta", "redis_message_id")}
    option = options.get(OPTION)
    # What else is in the stamp stays: the seal, and what a newer version wrote, which the seal covers.
    kept = option if isinstance(option, dict) and parsed(option) else {}
    more = {name: value for name, value in kept.items() if name not in ("f", "c", "q", "n")}
    options[OPTION] = {**stamp.option(), **more}
    return Message(
        queue_name=queue,
        actor_name=message.actor_name,
        args=message.args,
        kwargs=message.kwargs,
        options=options,
        message_id=message.message_id,
        message_timestamp=message.message_timestamp,
    )

"""Whether everything that waits has a path to the code of this process: what `rl config check-deploy` finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dramatiq import Broker, Message
from dramatiq.common import q_name

from relier.brokers.adapters import adapter_of
from relier.envelope import stamp_of, version_of
from relier.knowledge import actors_of
from relier.queues import is_internal
from relier.schema import Migrations, Unusable
from relier.store import Record, Store

#: Where work may be, in the order of the report. `later`: stages and callbacks that a waiting task brings along.
PLACES = ("queued", "scheduled", "running", "dead", "later")
_BY_STATE = {"r": "running", "h": "running", "d": "dead"}


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """What the path depends on."""

    actor: str
    version: int
    queue: str


@dataclass(frozen=True)
class Code:
    """The actors of this process: the payload version of each, and the queues that it would consume."""

    versions: Mapping[str, int]
    queues: frozenset[str]
    migrations: Migrations

    @classmethod
    def of(cls, broker: Broker, migrations: Migrations) -> Code:
        queues = {q_name(broker.actors[name].queue_name) for name in actors_of(broker)}
        return cls(actors_of(broker), frozenset(queues), migrations)

    def obstacle(self, kind: Kind) -> str:
        """Return why tasks of this kind cannot run; '' when they can."""
        expected = self.versions.get(kind.actor)
        if expected is None:
            return "this code has no such actor"
        if kind.version > expected:
            return f"newer than this code, which has version {expected}"
        if (missing := self.migrations.gap(kind.actor, max(1, kind.version), expected)) is not None:
            return f"no migration from version {missing} to {missing + 1}"
        if kind.queue and kind.queue not in self.queues:
            return f"no actor of this code declares the queue {kind.queue!r}"
        return ""

    def path(self, kind: Kind) -> str:
        """Say how tasks of a kind without obstacle come to run."""
        expected = self.versions[kind.actor]
        return "as it is" if max(1, kind.version) == expected else f"migrated to {expected}"


@dataclass
class Outlook:
    """What waits, and what becomes of it under this code."""

    code: Code
    counts: dict[Kind, Counter[str]] = field(default_factory=dict)
    #: Messages in queues that cannot be read without consuming them; None where not even their number is known.
    unread: dict[str, int | None] = field(default_factory=dict)
    #: Kinds that may be among the unread, since living workers have them, and that would have no path.
    possible: list[Kind] = field(default_factory=list)
    #: Dead letters and messages that cannot be decoded: no code runs those.
    undecodable: int = 0

    def add(self, kind: Kind, place: str) -> None:
        self.counts.setdefault(kind, Counter())[place] += 1

    @property
    def without_path(self) -> list[Kind]:
        return sorted(kind for kind in self.counts if self.code.obstacle(kind))

    @property
    def unusable(self) -> list[Unusable]:
        return list(self.code.migrations.unusable(self.code.versions))


def outlook(store: Store, broker: Broker, migrations: Migrations) -> Outlook:
    """Look at broker and store. Nothing is taken or changed; what moves meanwhile is counted once, here or there.

    Raises what redis-py raises, and Dramatiq's `BrokerConnectionError`.
    """
    found = Outlook(Code.of(broker, migrations))
    waiting = adapter_of(broker).waiting()
    # The broker first: a task on its way from one to the other is seen at least once.
    in_broker = _messages(waiting or (), found)
    for record in store.scan():
        if record.state == "e":
            continue
        in_broker.pop(record.task_id, None)
        _add_record(found, record)
    for message in in_broker.values():
        _add_message(found, message)
    if waiting is None:
        _note_unread(store, broker, found)
    return found


def _messages(bodies: Iterable[bytes], found: Outlook) -> dict[str, Message[Any]]:
    """Return messages by task id."""
    messages = {}
    for body in bodies:
        message = _decoded(body)
        if message is None:
            found.undecodable += 1
        elif not is_internal(message.queue_name):
            messages[stamp_of(message).task_id] = message
    return messages


def _decoded(body: bytes) -> Message[Any] | None:
    try:
        return Message.decode(body)
    except Exception:  # Whatever an encoder makes of bytes that are not its own.
        return None


def _add_record(found: Outlook, record: Record) -> None:
    if not record.actor:
        found.undecodable += record.state == "d"
        return
    place = _BY_STATE.get(record.state) or ("queued" if record.published else "scheduled")
    found.add(Kind(record.actor, max(1, record.payload_version), record.queue), place)
    message = _decoded(record.body)
    if message is not None:
        _add_later(found, message)


def _add_message(found: Outlook, message: Message[Any]) -> None:
    stamp = stamp_of(message)
    found.add(Kind(message.actor_name, stamp.payload_version, stamp.queue or q_name(message.queue_name)), "queued")
    _add_later(found, message)


def _add_later(found: Outlook, message: Message[Any]) -> None:
    for kind in _later(message, found.code):
        found.add(kind, "later")


def _later(message: Message[Any], code: Code) -> Iterator[Kind]:
    """Yield what a message will bring along: later stages, a group's callbacks, callbacks by name."""
    options = message.options
    for name in ("on_success", "on_failure", "on_retry_exhausted"):
        if isinstance(actor := options.get(name), str):
            yield Kind(actor, code.versions.get(actor, 1), "")
    callbacks = options.get("group_completion_callbacks")
    for fields in (options.get("pipe_target"), *(callbacks if isinstance(callbacks, list) else ())):
        if isinstance(fields, dict):
            stage: Message[Any] = Message(**fields)
            yield Kind(stage.actor_name, version_of(stage), q_name(stage.queue_name))
            yield from _later(stage, code)


def _note_unread(store: Store, broker: Broker, found: Outlook) -> None:
    """Note how much cannot be read, and what of it might have no path, by what the living workers run."""
    workers, actors, _ = store.fleet.knowledge()
    told = [worker for worker in workers.values() if worker.get("role") != "resurrector"]
    queues = {queue for worker in told for queue in worker.get("queues", ())}
    queues |= {*found.code.queues, *(kind.queue for kind in found.counts if kind.queue)}
    depths = {queue: adapter_of(broker).depth(queue) for queue in queues}
    found.unread = {queue: depth for queue, depth in depths.items() if depth != 0}
    if found.unread:
        found.possible = sorted(set(_without_path(found.code, (actors.get(str(w.get("actors")), {}) for w in told))))


def _without_path(code: Code, releases: Iterable[Mapping[str, int | None]]) -> Iterator[Kind]:
    for newest in releases:
        for actor, version in newest.items():
            if code.obstacle(kind := Kind(actor, version or 1, "")):
                yield kind

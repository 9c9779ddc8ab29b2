"""Relier's own Redis broker: Dramatiq's data layout, with a consumer that survives what Redis and workers do."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import dq_name, q_name
from dramatiq.middleware import Middleware

from relier.brokers.away import AWAY, explained
from relier.brokers.own import OwnBroker
from relier.brokers.peek import Head, redis_heads, redis_messages, redis_oldest, redis_queues
from relier.brokers.place import Place, mark_redis, redis_place
from relier.brokers.redis_consumer import RedisConsumer
from relier.brokers.redis_drain import drain_redis
from relier.preflight import Finding, inspect_redis, place
from relier.queues import lane_of
from relier.settings import Settings, get_settings
from relier.store.client import connect
from relier.store.connection import ScriptRunner
from relier.store.scripts import load_all, script
from relier.store.topology import SlotPool, client_of, slot_of
from relier.urls import safe_url

if TYPE_CHECKING:
    from relier.brokers.generic import Judge

#: What puts all keys of a namespace into one slot of a Redis Cluster.
_TAGGED = re.compile(r"\{[^}]+\}")

#: How long (s) a dead broker id is refused: longer than any zombie sleeps.
GONE_KEPT = 86_400
#: Most messages that one script returns to a queue.
GIVEN_BACK_AT_ONCE = 100


class RelierRedisBroker(OwnBroker, RedisBroker):
    """A Dramatiq broker on Redis with Relier installed.

    Delays live in the store's due index instead of worker memory; a dead worker's unacknowledged messages come back at
    once; an acknowledgement tells whether it removed the copy.

    Parameters:
      url: Redis to carry the messages. Defaults to `RELIER_BROKER_URL`, else the store's Redis.
      settings: Defaults to those of the environment.
      middleware: Dramatiq middlewares in place of its default ones; Relier's are added.
      namespace: prefix of the broker's keys. Defaults to `dramatiq`, or `dramatiq:<RELIER_NAMESPACE>` when that is set.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        middleware: list[Middleware] | None = None,
        namespace: str | None = None,
    ) -> None:
        self.settings = settings or get_settings()
        self._url = url or self.settings.broker_url
        #: Whether messages go through the store's connections: to the same server, or servers of the same cluster.
        self.uses_store = self._url is None or (
            self._url == self.settings.redis_url and not self.settings.redis_use_sentinel
        )
        if namespace is None:
            namespace = "dramatiq" if self.settings.namespace == "relier" else f"dramatiq:{self.settings.namespace}"
            namespace = f"{{{namespace}}}" if self._on_cluster else namespace
        if self._on_cluster and not _TAGGED.search(namespace):
            raise ValueError(
                f"namespace={namespace!r} spreads the broker's keys over a Redis Cluster, whose scripts cannot reach"
                f" them together. Put it in braces: namespace='{{{namespace}}}'."
            )
        super().__init__(  # type: ignore[no-untyped-call]
            middleware=middleware, namespace=namespace, client=_Unconnected()
        )
        load_all("relier.brokers")
        self._held: dict[str, set[str]] = {}
        self._acks: dict[str, dict[str, Any]] = {}
        self._held_lock = threading.Lock()
        #: Whether consumers take nothing: see `withdraw`.
        self.idle = False
        self._complete()

    # -- connecting, on first use -------------------------------------------------------------------------------

    @property
    def shares_redis(self) -> bool:
        """Whether broker and store are the same server: then they lose and keep the same writes."""
        return self.uses_store and not self.settings.redis_use_cluster

    @property
    def _on_cluster(self) -> bool:
        return self.uses_store and self.settings.redis_use_cluster

    @cached_property
    def runner(self) -> ScriptRunner:
        return self.store.runner if self.uses_store else ScriptRunner(connect(self.settings, self._url))

    @cached_property
    def connection(self) -> redis.Redis:
        """The client that messages go through."""
        pool = self.runner.client.connection_pool
        if isinstance(pool, SlotPool):
            return client_of(pool.topology, slot_of(self.namespace), self.settings.redis_max_connections)
        return self.runner.client

    def _keys(self, queue_name: str, broker_id: str | None = None) -> tuple[str, str, str]:
        full = f"{self.namespace}:{queue_name}"
        return full, full + ".msgs", f"{self.namespace}:__acks__.{broker_id or self.broker_id}.{queue_name}"

    @property
    def _gone(self) -> str:
        return f"{self.namespace}:__relier_gone__"

    @property
    def _known(self) -> str:
        return f"{self.namespace}:__relier_brokers__"

    def _run(self, name: str, keys: Iterable[str], *args: Any) -> Any:
        return self.runner.run(script(name, "relier.brokers"), tuple(keys), args)

    @property
    def _where(self) -> str:
        """The place of its Redis, without secrets."""
        return safe_url(self._url) if self._url and not self.uses_store else place(self.store.client, self.settings)

    # -- publishing ---------------------------------------------------------------------------------------------

    def _send(self, message: Message[Any]) -> Message[Any]:
        """Raises redis-py's errors when Redis is away, with a text that says where it was looked for."""
        message = message.copy(options={"redis_message_id": str(uuid4())})
        self._announce(message)
        try:
            self._out([message], self._append)
        except AWAY as error:
            raise explained(error, self._where) from error
        self.emit_after("enqueue", message, None)
        return message

    def _append(self, messages: list[Message[Any]]) -> None:
        (message,) = messages
        keys = self._keys(message.queue_name)[:2]
        self._run("enqueue", keys, message.options["redis_message_id"], self._encoded(message))

    def enqueue_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Enqueue messages in one round trip; all are encoded before the first is written."""
        ready = [m.copy(options={"redis_message_id": str(uuid4())}) for m in self._first_hand(messages)]
        return self._publish(ready, "enqueue", self._encoded)

    def publish_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Publish copies that the store keeps, to their queues' delay lanes: every consumer takes those first."""
        lane = [m.copy(queue_name=lane_of(m.queue_name), options={"redis_message_id": str(uuid4())}) for m in messages]
        return self._publish(lane, "publish", Message.encode)

    def _publish(
        self, messages: list[Message[Any]], name: str, encode: Callable[[Message[Any]], bytes]
    ) -> list[Message[Any]]:
        for message in messages:
            self._announce(message)
        try:
            self._out(messages, lambda ready: self._append_many(ready, name, encode))
        except AWAY as error:
            raise explained(error, self._where) from error
        for message in messages:
            self.emit_after("enqueue", message, None)
        return messages

    def _append_many(self, messages: list[Message[Any]], name: str, encode: Callable[[Message[Any]], bytes]) -> None:
        calls = [
            (
                script(name, "relier.brokers"),
                self._keys(message.queue_name)[:2],
                (message.options["redis_message_id"], encode(message)),
            )
            for message in messages
        ]
        for i in range(0, len(calls), 500):
            self.runner.run_many(calls[i : i + 500])

    # -- consuming ----------------------------------------------------------------------------------------------

    @property
    def consumer_class(self) -> Any:
        return RedisConsumer

    def attach(self) -> str:
        """Make this broker id known, so that its messages are found should nobody else remember it.

        Returns the identity of the server that the calling thread's connection leads to.
        """
        self.runner.command("ZADD", self._known, int(time.time()), self.broker_id)
        (about,) = self.runner.about([self._known], "server")
        return next(line for line in about.decode().splitlines() if line.startswith("run_id:"))

    def exchange(
        self, queue_name: str, broker_id: str, count: int, acks: Sequence[str]
    ) -> tuple[list[bool], list[tuple[str, bytes]] | None]:
        """Acknowledge messages and take up to `count` new ones.

        Returns for each acknowledgement whether this call removed the copy, and the messages; None instead of them when
        this broker id was declared dead.
        """
        keys = (*self._keys(queue_name, broker_id), self._gone)
        exchange = script("exchange", "relier.brokers")
        removed, flat = self.runner.run_unbroken(exchange, keys, (broker_id, count, *acks))
        self.forget(queue_name, acks)
        if flat is None:
            return [bool(r) for r in removed], None
        taken = [(message_id.decode(), data) for message_id, data in zip(flat[::2], flat[1::2], strict=True)]
        with self._held_lock:
            self._held.setdefault(queue_name, set()).update(message_id for message_id, _ in taken)
        return [bool(r) for r in removed], taken

    def pending_acks(self, queue_name: str) -> dict[str, Any]:
        """Return the acknowledgements of a queue that are noted but not sent, by message id."""
        return self._acks.setdefault(queue_name, {})

    def requeue(self, queue_name: str, broker_id: str, message_ids: list[str]) -> None:
        """Put messages back to the head of their queue."""
        for end in range(len(message_ids), 0, -GIVEN_BACK_AT_ONCE):  # The last first: each goes before the one before.
            batch = message_ids[max(0, end - GIVEN_BACK_AT_ONCE) : end]
            self._run("requeue", self._keys(queue_name, broker_id), *batch)
        self.forget(queue_name, message_ids)

    def reclaim(self, queue_name: str, broker_id: str) -> int:
        """Put back what Redis believes this process to hold and it does not."""
        with self._held_lock:
            held = list(self._held.get(queue_name, ()))
        return int(self._run("reclaim", self._keys(queue_name, broker_id), *held))

    def forget(self, queue_name: str, message_ids: Iterable[str]) -> None:
        """Forget that this process holds messages."""
        with self._held_lock:
            self._held.get(queue_name, set()).difference_update(message_ids)

    def hold_only(self, queue_name: str, message_ids: Iterable[str]) -> None:
        """Forget that this process holds any other message of a queue."""
        with self._held_lock:
            self._held.setdefault(queue_name, set()).intersection_update(message_ids)

    def renew_broker_id(self) -> None:
        """Consume under a new id from now on; copies held under the old one are void."""
        with self._held_lock:
            self.broker_id = str(uuid4())
            self._held.clear()
            void = [message for acks in self._acks.values() for message in acks.values()]
            for acks in self._acks.values():
                acks.clear()
        for message in void:
            message.removed(False)

    def withdraw(self) -> None:
        """Take nothing until `resume`, and return what no worker thread has."""
        self.idle = True

    def resume(self) -> None:
        self.idle = False

    # -- what others ask ----------------------------------------------------------------------------------

    def inspect(self) -> Iterable[Finding]:
        """Look at the broker's Redis with the store's eyes, unless it is the same."""
        if self.uses_store:
            return ()
        settings = self.settings.model_copy(update={"redis_url": self._url, "redis_use_sentinel": False})
        findings = inspect_redis(self.connection, settings)
        return [replace(finding, name=f"broker {finding.name}") for finding in findings if finding.name != "settings"]

    def return_unacked(self, broker_id: str, queues: Iterable[str]) -> None:
        """Return a dead broker id's messages to their queues, and refuse it from now on."""
        for queue in queues:
            for name in (queue, dq_name(queue)):
                keys = (*self._keys(name, broker_id), self._gone)
                args = (broker_id, int(time.time()), GIVEN_BACK_AT_ONCE, GONE_KEPT)
                while self._run("give_back", keys, *args):
                    pass
        self.runner.command("ZREM", self._known, broker_id)

    def known_broker_ids(self) -> set[str]:
        """Return every broker id that consumed and was not returned."""
        return {broker_id.decode() for broker_id in self.runner.command("ZRANGE", self._known, 0, -1)}

    def lane_depth(self, queue: str) -> int:
        """Return how many published copies wait in a queue's delay lane."""
        return int(self.runner.command("LLEN", self._keys(lane_of(queue))[0]))

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue and its delay lane."""
        return sum(int(self.runner.command("LLEN", self._keys(name)[0])) for name in (queue, dq_name(queue)))

    def held(self, queue: str) -> int:
        keys = [self._keys(name) for name in (queue, dq_name(queue))]
        sizes = [int(self.runner.command(c, key)) for k in keys for c, key in (("HLEN", k[1]), ("LLEN", k[0]))]
        return max(0, sum(sizes[::2]) - sum(sizes[1::2]))

    def waiting(self) -> Iterable[bytes]:
        return redis_messages(self.connection, self.namespace)

    def oldest(self, queue: str) -> float | None:
        return redis_oldest(self.connection, self.namespace, (queue, dq_name(queue)))

    def heads(self, queues: Sequence[str]) -> dict[str, Head]:
        return redis_heads(self.runner.commands, self.namespace, queues)

    def queues_with_messages(self) -> set[str]:
        return redis_queues(self.connection, self.namespace)

    def has_queue(self, queue: str) -> bool:
        return queue in self.queues_with_messages()

    def drain(self, queue: str, judge: Judge) -> int:
        return drain_redis(self.connection, self.namespace, queue, judge)

    def place(self) -> Place:
        return redis_place(self.connection, self.namespace)

    def mark_place(self) -> None:
        mark_redis(self.connection, self.namespace)

    # -- Dramatiq's own commands --------------------------------------------------------------------------------

    def do_qsize(self, queue_name: str) -> int:
        """Return how many messages of a queue wait or are unacknowledged (for `join` in tests)."""
        name = q_name(queue_name)
        return sum(int(self.runner.command("HLEN", self._keys(n)[1])) for n in (name, dq_name(name)))

    def do_purge(self, queue_name: str) -> None:
        """Drop the messages of one queue or lane."""
        self.runner.command("DEL", *self._keys(queue_name))

    def _dispatch(self, command: str) -> Any:
        raise AttributeError(f"RelierRedisBroker does not use Dramatiq's script for {command!r}.")

    def close(self) -> None:
        """Close this process's connections; a later call opens new ones."""
        if "runner" in self.__dict__:
            self.runner.close()


class _Unconnected:
    """Stands in for the client that Dramatiq's constructor wants: ours is made on first use."""

    def register_script(self, source: Any) -> None:
        return None

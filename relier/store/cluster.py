"""Runs scripts on a Redis Cluster: each on the server that has its shard, all of a round trip at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.connection import AbstractConnection
from redis.exceptions import AskError, MovedError

from relier.store.channels import SHARDED
from relier.store.connection import Argument, Exchange, ScriptCall, ScriptRunner, first_error_raised
from relier.store.topology import Address, SlotPool, Topology, slot_of, whole

#: How often a command is sent on to where it was told to go.
REDIRECTIONS = 5

#: Where the first key of a command is; of any other it follows the command's name.
_KEY_AT = {"EVALSHA": 3, "EVAL": 3, "EVALSHA_RO": 3, "EVAL_RO": 3, "PUBSUB": 2, "XREAD": 3, "MEMORY": 2, "OBJECT": 2}
#: Commands without a key: the fleet's server gets them.
_KEYLESS = frozenset({"PING", "TIME", "INFO", "CONFIG", "CLIENT", "SCAN", "COMMAND", "WAIT", "SCRIPT", "ACL", "DBSIZE"})


#: How long (s) a call waits at most for the end of a slot's move, and how often (s) it looks.
SLOT_MOVES = 2.0
LOOK_AGAIN = 0.02


#: What a server says that cannot serve as the master of a slot at the moment.
_NO_MASTER = (redis.exceptions.ClusterDownError, redis.exceptions.ReadOnlyError)


class Routed(bytes):
    """A command as it goes over the wire, and where to."""

    slot: int | None = None
    node: Address | None = None

    @classmethod
    def to(cls, packed: bytes, *, slot: int | None = None, node: Address | None = None) -> Routed:
        routed = cls(packed)
        routed.slot, routed.node = slot, node
        return routed


class Link:
    """The connections of one thread or line, by server."""

    def __init__(self) -> None:
        self.connections: dict[Address, AbstractConnection] = {}


class ClusterRunner(ScriptRunner):
    """Sends each script to the master of its shard's slot. A round trip goes to all of them at once.

    A server that is away fails what is sent to it and nothing else. What is sent elsewhere because a slot has moved is
    sent on; `generation` has grown then, as the new master may lack the last writes of the old one.

    Parameters:
      client: leads to the server that has the fleet's shard; see `relier.store.client.connect`.
      topology: of the cluster.
    """

    channels = SHARDED

    def __init__(self, client: redis.Redis, topology: Topology) -> None:
        super().__init__(client)
        self.topology = topology
        self._elected = True
        pool = client.connection_pool
        assert isinstance(pool, SlotPool)
        self._home = pool.slot
        self._changes = topology.changes

    def everywhere(self, *args: Argument) -> list[Any]:
        """Run one plain command that names no key on every master; one reply for each."""
        packed = super()._packed(*args)
        replies = self._exchange([Routed.to(packed, node=node) for node in self.topology.masters()])
        return first_error_raised(replies)

    def scan(self, pattern: str, count: int = 1000) -> Iterator[list[bytes]]:
        for node in self.topology.masters():
            cursor: Any = "0"
            while True:
                packed = super()._packed("SCAN", cursor, "MATCH", pattern, "COUNT", count)
                ((cursor, names),) = first_error_raised(self._exchange([Routed.to(packed, node=node)]))
                yield names
                if cursor in (b"0", "0"):
                    break

    def _evaluated(self, calls: Sequence[ScriptCall], exchange: Exchange) -> list[Any]:
        return super()._evaluated([(operation, whole(keys), args) for operation, keys, args in calls], exchange)

    def _packed(self, *command: Argument) -> bytes:
        packed = super()._packed(*command)
        name = str(command[0]).upper()
        at = _KEY_AT.get(name, 1)
        if name in _KEYLESS or len(command) <= at:
            return Routed.to(packed, slot=self._home)
        key = command[at]
        return Routed.to(packed, slot=slot_of(key if isinstance(key, (str, bytes)) else str(key)))

    def one_of_each(self, keys: Sequence[str]) -> list[str]:
        return list({self.topology.master_of(slot_of(key)): key for key in reversed(keys)}.values())

    def about(self, keys: Sequence[str], section: str) -> list[bytes]:
        packed = super()._packed("INFO", section)
        return first_error_raised(self._exchange([self._beside(key, packed) for key in keys]))

    def _beside(self, key: str, packed: bytes) -> bytes:
        return Routed.to(packed, slot=slot_of(key))

    def _greetings(self) -> list[bytes]:
        return [Routed.to(super(ClusterRunner, self)._packed("PING"), node=node) for node in self.topology.masters()]

    def _new_connection(self) -> Any:
        return Link()

    def _connection_to(self, link: Link, node: Address) -> AbstractConnection:
        connection = link.connections.get(node)
        if connection is None:
            connection = link.connections[node] = self.topology.connection(node)
            self._know(connection)
        return connection

    def _raise_if_closed(self, link: Any) -> None:
        for connection in list(link.connections.values()):
            super()._raise_if_closed(connection)

    def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """What arrives while its slot moves has not begun: it is sent again until the slot has arrived, for a while.

        Not on shared lines: others wait there, and workers try again by themselves.
        """
        replies = super()._exchange(commands)
        until = time.monotonic() + SLOT_MOVES
        while (moving := [i for i, r in enumerate(replies) if _is_moving(r)]) and time.monotonic() < until:
            time.sleep(LOOK_AGAIN)
            for i, reply in zip(moving, super()._exchange([commands[i] for i in moving]), strict=True):
                replies[i] = reply
        return replies

    def _exchange_on(self, link: Any, commands: Sequence[bytes]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        todo = list(range(len(commands)))
        for _ in range(REDIRECTIONS):
            unsent = self._round(link, commands, todo, replies)
            moved = [i for i in todo if isinstance(replies[i], AskError) and self._go_on(link, commands, replies, i)]
            todo = [*moved, *(i for i, node in unsent.items() if self._has_successor(commands[i], node))]
            if not todo:
                break
        self._note_changes()
        return [_unmoved(reply) for reply in replies]

    def _round(self, link: Link, commands: Sequence[bytes], todo: list[int], replies: list[Any]) -> dict[int, Address]:
        """Send commands to their servers, then read from all of them; errors become replies.

        Returns the commands that cannot have arrived, because there was no connection, and where they were to go.
        """
        begun: list[tuple[Address, list[int]]] = []
        unsent: dict[int, Address] = {}
        try:
            for node, indexes in self._by_node(commands, todo, replies).items():
                try:
                    begun.append((node, indexes))
                    self._begin(self._connection_to(link, node), [commands[i] for i in indexes], node)
                except Exception as error:
                    begun.pop()
                    if "relier_peer" not in self._connection_to(link, node).__dict__:
                        unsent.update(dict.fromkeys(indexes, node))
                    self._lost(link, node, indexes, replies, error)
            while begun:
                node, indexes = begun[0]
                try:
                    answers = self._finish(self._connection_to(link, node), [commands[i] for i in indexes])
                    for i, answer in zip(indexes, answers, strict=True):
                        replies[i] = answer
                        if isinstance(answer, _NO_MASTER):
                            self.failures += 1
                            self.topology.doubt()
                except Exception as error:
                    self._lost(link, node, indexes, replies, error)
                begun.pop(0)
        except BaseException as error:  # An interrupted thread leaves replies unread.
            for node, _ in begun:
                self._give_up(self._connection_to(link, node), error)
            raise
        return unsent

    def _has_successor(self, command: bytes, away: Address) -> bool:
        """Whether another server has the part of the store that a command is for, which could not be sent."""
        try:
            return self._asked(command) != away
        except redis.exceptions.ClusterDownError:
            return False

    def _by_node(self, commands: Sequence[bytes], todo: list[int], replies: list[Any]) -> dict[Address, list[int]]:
        found: dict[Address, list[int]] = {}
        for i in todo:
            command = commands[i]
            assert isinstance(command, Routed)
            try:
                node = command.node or self.topology.master_of(self._home if command.slot is None else command.slot)
            except redis.exceptions.ClusterDownError as error:
                self.failures += 1
                replies[i] = error
            else:
                found.setdefault(node, []).append(i)
        return found

    def _lost(self, link: Link, node: Address, indexes: list[int], replies: list[Any], error: Exception) -> None:
        self._give_up(self._connection_to(link, node), error)
        self.topology.doubt(node)
        for i in indexes:
            replies[i] = error

    def _go_on(self, link: Link, commands: Sequence[bytes], replies: list[Any], i: int) -> bool:
        """Follow a redirection; returns whether the command is to be sent again by the new map."""
        reply = replies[i]
        target = (reply.host or self._asked(commands[i])[0], reply.port)
        if isinstance(reply, MovedError):
            self.topology.moved(reply.slot_id, target)
            return True
        connection = self._connection_to(link, target)  # One slot is on its way to another server: for this call only.
        try:
            packed = super()._packed("ASKING") + commands[i]
            self._begin(connection, [packed], target)
            replies[i] = self._finish(connection, [b"", packed])[1]
        except Exception as error:
            self._lost(link, target, [i], replies, error)
        return False

    def _asked(self, command: bytes) -> Address:
        assert isinstance(command, Routed)
        return command.node or self.topology.master_of(self._home if command.slot is None else command.slot)

    def _note_changes(self) -> None:
        if self._changes != self.topology.changes:
            self._changes = self.topology.changes
            self.generation += 1
            masters = self.topology.known_masters
            self._leave(lambda _, place: place not in masters)

    def _counts_as_lost(self, connected: bool) -> bool:
        """Nothing was sent to a server that is away; what the others have stays valid meanwhile."""
        return connected

    def _out_of_reach(self, given_up: set[tuple[bytes, int]], here: bytes) -> set[tuple[bytes, int]]:
        known = set(self._servers.values())
        return {(run_id, number) for run_id, number in given_up if run_id == here or run_id not in known}


def _is_moving(reply: Any) -> bool:
    return isinstance(reply, redis.exceptions.TryAgainError)


def _unmoved(reply: Any) -> Any:
    """A command that was sent around in a circle may be sent again: the servers do not agree yet."""
    if isinstance(reply, AskError):
        return redis.exceptions.TryAgainError(f"The slot moves ({reply}).")
    return reply


def runner_for(client: redis.Redis) -> ScriptRunner:
    """Return what runs scripts where a client leads to."""
    pool = client.connection_pool
    return ClusterRunner(client, pool.topology) if isinstance(pool, SlotPool) else ScriptRunner(client)

"""Names of every key and channel: `rl:<namespace>:{NN}:…`, NN one of 64 shards."""

from __future__ import annotations

import zlib

#: The number of shards. Fixed for good: it is recorded in the store and checked at start.
SHARDS = 64

#: Version of the format of keys and records. Recorded with the number of shards.
FORMAT = 1

_SHARD_KEYS = ("rec", "due", "meta", "dead", "ev", "dlq", "end")
_FLEET_KEYS = (
    *("workers", "beats", "gone", "obligations", "leases", "about", "pulses", "actors", "holds"),
    *("objectives", "busy"),
)
#: Fields of a shard's `meta` that are no counters.
CLOCKS = frozenset({b"floor", b"age", b"seen", b"skew", b"tide", b"rolled"})


def shard_of(key: str) -> int:
    """Return the shard of a job key, an idempotency key or a task id."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % SHARDS


class Keys:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._prefixes = [f"rl:{namespace}:{{{shard:02d}}}:" for shard in range(SHARDS)]
        self._shards = [tuple(prefix + name for name in _SHARD_KEYS) for prefix in self._prefixes]
        self.fleet = tuple(self._prefixes[0] + name for name in _FLEET_KEYS)

    def shard(self, shard: int, worker: str) -> tuple[str, ...]:
        """Return a shard's keys, the last one being `worker`'s own set."""
        return (*self._shards[shard], f"{self._prefixes[shard]}own:{worker.rpartition(':')[2]}")

    def of_tasks(self, worker: str) -> list[str]:
        """Return the keys of every shard that tell of tasks and limits, the own sets of `worker` included."""
        shards = range(SHARDS)
        more = [key for shard in shards for key in (*self.admission(shard)[:2], self.letters(shard), self.marks(shard))]
        more += [key for shard in shards for key in (self.statistics(shard), self.statistics(shard, "all"))]
        return [key for shard in shards for key in self.shard(shard, worker)] + more

    def statistics(self, shard: int, period: str = "") -> str:
        """Return the hash of what was noted in the minutes that are running, of a period, or of all time (`all`)."""
        return f"{self._prefixes[shard]}st" + (f":{period}" if period else "")

    def letters(self, shard: int) -> str:
        """Return the summaries of a shard's dead letters: task id -> a packed array (see `include/letters.lua`)."""
        return f"{self._prefixes[shard]}letters"

    def letters_by(self, shard: int) -> str:
        """Return how many of a shard's dead letters there are by queue, actor and reason."""
        return f"{self._prefixes[shard]}letters:by"

    def marks(self, shard: int) -> str:
        """Return the hash of a shard's purge marks."""
        return f"{self._prefixes[shard]}marks"

    def lots(self, shard: int) -> str:
        """Return the set of the lots in which a shard's tasks are parked."""
        return f"{self._prefixes[shard]}lots"

    def lot(self, shard: int, lot: str) -> str:
        return f"{self._prefixes[shard]}lot:{lot}"

    def admission(self, shard: int) -> tuple[str, ...]:
        """Return the keys of the limits whose names belong to a shard, and of its counters."""
        prefix = self._prefixes[shard]
        return f"{prefix}adm", f"{prefix}adm.at", f"{prefix}meta"

    def gate(self, shard: int) -> str:
        """Return the key that scripts of people's commands name besides those that they use.

        Nothing is ever kept there. Where Redis knows Relier's roles (redis/users.acl), only the operator may touch it.
        """
        return f"{self._prefixes[shard]}@gate"

    def lock(self, key: str) -> str:
        """Return the key of an idempotency lock."""
        return f"{self._prefixes[shard_of(key)]}lock:{key}"

    @property
    def prefix(self) -> str:
        """What every key of the namespace begins with."""
        return f"rl:{self.namespace}:"

    def chaos(self, token: str) -> str:
        """Return the key that holds the probes of one experiment of `rl chaos`."""
        return f"{self._prefixes[0]}chaos:{token}"

    def group(self, group_id: str) -> str:
        return f"{self._prefixes[shard_of(group_id)]}grp:{group_id}"

    def marker(self, shard: int) -> str:
        """Return the key of what is written to see that a shard's replicas have all that was written before."""
        return f"{self._prefixes[shard]}sync"

    def control(self, worker: str) -> str:
        """Return the worker's control channel; its subscription is also the worker's sign of life."""
        return f"{self._prefixes[0]}ctl:{worker}"

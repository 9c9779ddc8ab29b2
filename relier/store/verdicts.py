"""What the store answers: one extensible verdict for claims, and small replies for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, Self

#: Longest time (s) for which anything is kept, a hundred years. Redis refuses far longer ones, amid a script.
LONGEST = 36_525 * 86_400.0


def milliseconds(seconds: float) -> int:
    """Return a time to live as Redis takes it: at least 1, and at most `LONGEST`."""
    return max(1, int(min(seconds, LONGEST) * 1000))


class Verdict(StrEnum):
    """What the holder of a copy may do with it."""

    GRANTED = "granted"  #: run it
    TAKEN_OVER = "taken-over"  #: run it; its last owner died
    REPLAY = "replay"  #: it has ended: run only its hooks, with the stored result
    DUPLICATE = "duplicate"  #: the same, with the result of the task that completed under its key
    BUSY = "busy"  #: it runs elsewhere
    STALE = "stale"  #: the store will publish a newer copy
    SETTLED = "settled"  #: it has ended
    HELD = "held"  #: the store offers it again later
    FENCED = "fenced"  #: the caller was declared dead
    NEWER = "newer"  #: a newer Relier wrote its record
    REFUSED = "refused"  #: the run was lost; nothing was changed


class Suspicion(IntEnum):
    """How alone a task has to run after its crashes (R9)."""

    NONE = 0
    SUSPECT = 1  #: one of them at a time in a process
    LAST = 2  #: the next crash makes it a dead letter: nothing beside it


#: The verdicts after which user code runs.
RUNS = frozenset({Verdict.GRANTED, Verdict.TAKEN_OVER})

#: The verdicts after which only its hooks run.
HOOKS_ONLY = frozenset({Verdict.REPLAY, Verdict.DUPLICATE})


@dataclass(frozen=True, slots=True)
class Claim:
    """The reply to a claim; all but `verdict` and `age` has a meaning only when the task is the caller's."""

    verdict: Verdict
    fence: int = 0
    attempt: int = 0  #: failures so far
    #: How often it was put back after a crash. Of a settled one: not 0 where this claim found one too many.
    crashes: int = 0
    suspect: bool = False
    result: bytes = b""  #: for a replay: the stored result or failure
    outcome: str = ""  #: for a replay: completed or dead
    checkpoint: bytes = b""  #: what the last run left of its work
    age: float = 0.0  #: for a refusal: seconds for which the store has had the task
    span: str = ""  #: the trace context of the task's run before this one; '' when it had none


@dataclass(frozen=True, slots=True)
class Failure:
    """What a run's failure means for its task."""

    retry: bool
    delay: float  #: seconds until the retry
    counts: bool  #: whether it counts as an attempt
    hooks: bool  #: whether hooks are to run after a final failure
    reason: str
    encoded: bytes  #: the failure for people and for replays (see `relier.hooks`)
    summary: str  #: short text for the run's history
    fingerprint: str = ""
    #: So many identical failures in a row end the task although it asks for a retry; 0: no number does.
    identical_limit: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """An ended run whose hooks are done and whose copy is acknowledged."""

    task_id: str
    shard: int
    fence: int
    confirmed: bool  #: whether our own ack script saw the copy removed
    generation: int = 0  #: that of the store's connections at the time; after another one nothing is confirmed


@dataclass(frozen=True, slots=True)
class Due:
    """A record that is to be published."""

    task_id: str
    shard: int
    fence: int
    state: str
    suspicion: Suspicion
    crashes: int
    published: int  #: copies published since it began to wait
    queue: str
    actor: str
    body: bytes
    payload_version: int = 1


class Lot(NamedTuple):
    """Where tasks of one shard are parked that the same workers can run."""

    shard: int
    queue: str
    actor: str
    version: int = 1

    @property
    def name(self) -> str:
        """Its name in the store; the first version's is also that of an older Relier."""
        parts = (self.queue, self.actor) if self.version <= 1 else (self.queue, self.actor, str(self.version))
        return "\n".join(parts)

    @classmethod
    def of(cls, shard: int, name: str) -> Self:
        queue, _, rest = name.partition("\n")
        actor, _, version = rest.partition("\n")
        return cls(shard, queue, actor, int(version or 1))


class Parking(NamedTuple):
    """Why a task is parked, and after which time (s) under the same reason it becomes which dead letter, if ever."""

    reason: str
    grace: float = 0.0
    failure: bytes = b""  #: encoded; empty: it never does


@dataclass(frozen=True, slots=True)
class Burial:
    """What burying a worker in one shard did."""

    put_back: int
    dead_lettered: int
    left: int
    #: Id, actor, queue and number of crashes of each that was dead-lettered.
    letters: tuple[tuple[str, str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison of the store's view with a worker's own view found."""

    released: tuple[str, ...]  #: nobody's runs, put back
    lost: tuple[str, ...]  #: runs that the worker no longer owns
    missing: tuple[str, ...]  #: runs that the store lacks
    asked: tuple[str, ...]  #: runs that are to end: somebody cancelled their tasks


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What the store needs to know of a task's idempotency key. Times are seconds."""

    key: str  #: its digest
    on_duplicate: str  #: wait, join or drop
    hooks: bool  #: whether hooks follow a completion
    needs_result: bool  #: whether one of them needs the result
    ttl: float  #: for which a completion counts
    in_flight: float  #: for which a dead owner keeps the key
    retention: float  #: for which the id of an ended duplicate is kept
    result_ttl: float  #: for which a duplicate has the result

    def terms(self) -> dict[str, Any]:
        """Return them as the scripts take them."""
        return {
            "k": self.key,
            "on": self.on_duplicate,
            "hooks": int(self.hooks),
            "needs": int(self.needs_result),
            "ttl": milliseconds(self.ttl),
            "flight": int(self.in_flight * 1_000_000),
            "keep": int(self.retention * 1_000_000),
            "res": milliseconds(self.result_ttl),
        }


@dataclass(frozen=True, slots=True)
class JobTerms:
    """How a task with a job key is pushed."""

    delay: float  #: seconds after which a sweeper publishes it
    published: bool = False  #: whether the caller publishes a copy by itself as well
    cancels: bool = True  #: whether an older one that runs is cancelled; else it may finish, without a commit
    refuses: bool = False  #: whether a dead letter under the key refuses it


@dataclass(frozen=True, slots=True)
class Custody:
    """What became of a push with a job key."""

    rank: int  #: the higher, the newer; 0: it was known before, and is no longer the newest
    superseded: str = ""  #: the older task that this push ended
    owner: str = ""  #: the worker that runs that one
    refused_by: str = ""  #: the dead letter under the key that refuses it; nothing was taken then
    reason: str = ""  #: that letter's


@dataclass(frozen=True, slots=True)
class Sending:
    """What the store keeps of a message so that it can publish it again by itself."""

    task_id: str
    shard: int
    queue: str
    actor: str
    body: bytes
    payload_version: int = 1
    max_resurrections: int = 5
    follow_up: bool = False
    key: KeyTerms | None = None
    unsigned: bool = False  #: accepted though nobody has signed it, since signatures are not required yet
    created: float = 0.0  #: when its message was made, in seconds since the epoch on its producer's clock; 0: unknown
    on_dead: str = ""  #: who is told when it is dead (see `relier.sending.told_of_death`)
    job: str = ""  #: the digest of its job key, which also decided its shard
    rank: int = 0  #: that of its push under the job key; 0: unknown
    span: str = ""  #: the trace context of the run that claims it; '' without traces

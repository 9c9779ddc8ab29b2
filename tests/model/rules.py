"""The switches: what the life cycle promises to do, and what the world may do to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """The design's rules, each with a switch. All on is Relier; one off must give a counterexample."""

    nonce: bool = True
    """R2: a claim is recognised by its nonce. Off: by its caller alone."""
    fence_at_commit: bool = True
    """R3: a commit must carry the record's fence. Off: any commit of a running task is accepted."""
    durable_custody: bool = True
    """R4: an acknowledgement that leaves the task to the store waits until the store's record is durable."""
    fenced_copy_kept: bool = True
    """R4: a caller that is told `fenced` does not acknowledge its copy."""
    give_back: bool = True
    """R4: a call refused because the store has no record gives the copy back. Off: acknowledges it."""
    decline_entrusts: bool = True
    """R4: a process that lacks the actor lets the store have the task, then acknowledges. Off: acknowledges only."""
    ack_bound: bool = True
    """R4: an acknowledgement counts only on the connection, or server, that delivered the copy."""
    durable_registration: bool = True
    """R4: a process fetches only after its registration is durable. Off: the store may forget whom to bury."""
    confirmed_only: bool = True
    """R5: a record is dropped only when the ack script saw the copy go."""
    sticky: bool = True
    """R5: a record is kept when other copies may exist."""
    sticky_follow_up: bool = True
    """R5: the record of a follow-up is always kept: a replayed parent enqueues it again."""
    drop_disconnected: bool = True
    """R5: every attempt to claim first drops a copy fetched from a server that has since been replaced."""
    doubt_after_loss: bool = True
    """R5: a run that lived through a change of the store's server settles unconfirmed."""
    doubt_after_repeat: bool = True
    """R5: a run that had to repeat a call settles unconfirmed: the first request may still arrive."""
    ended_is_final: bool = True
    """R3: a stamp above the record's fence revives waiting and running tasks only, never an ended one."""
    floor_guards_lost: bool = True
    """R5: without a record, a commit or re-adoption counts only while its fence is above the shard's floor."""
    dead_set: bool = True
    """R6: claim refuses a caller whose identity was buried."""
    atomic_burial: bool = True
    """R6: an identity joins the dead set in the same step that moves its records."""
    bury_before_return: bool = True
    """R6: a dead process's messages go back to the queue only after its shards were buried."""
    hooks_pending: bool = True
    """R7: a committed task has not ended until its hooks are done."""
    beat_snapshot: bool = True
    """R8: a beat releases only what was granted before its snapshot."""
    beat_counts: bool = True
    """R8: the worker's own count of snapshots tells which grant was before one. Off: the server's clock."""
    local_before_claim: bool = True
    """R8: the local set gets the id before the claim is sent. Off: when the reply arrives."""
    beat_frees_hooks: bool = True
    """R8: a beat releases ended tasks with pending hooks that nobody runs, as it does runs."""
    return_unheld: bool = True
    """R8: a process returns to the queue what its ack set holds and it does not."""
    time_goes_on: bool = True
    """Clocks: what waits goes on when the server's clock is set back. Off: it waits as much longer."""
    watched_retention: bool = True
    """Clocks: an ended id is kept for as long as somebody watched. Off: until a time of the server's clock."""
    draining_returns: bool = True
    """R4: a process that is told to end gives back what it has not claimed. Off: acknowledges it."""
    leaving_is_buried: bool = True
    """R6: who leaves in order is buried like a dead one, without a crash. Off: is only forgotten."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One small world: a broker, a topology, the faults that may happen and how many of them."""

    faults: frozenset[str]
    budget: int
    broker: str = "redis"
    """`redis`: returns by burial, acks confirmed. `amqp`: returns when a connection ends, acks never confirmed."""
    same_server: bool = False
    """Store and broker are one server: they roll back together, and custody needs no waiting."""
    follow_up: bool = False
    """The task is a pipeline stage: its parent's hooks may enqueue it a second time."""
    workers_started: bool = True
    """Off: the workers have still to start and to register."""
    mixed: bool = False
    """The process in slot 1 has old code, which lacks the task's actor, until it is started again."""
    max_crashes: int = 1
    rules: Rules = Rules()

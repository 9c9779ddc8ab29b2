"""A fleet under steady load whose master is lost, and what became of every task that was accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from relier.store.keys import shard_of
from tests.integration.harness import Harness
from tests.servers.groups import Group, Member
from tests.waiting import wait_until

#: After how many pushes the producer asks a replica whether it has them.
CONFIRM_EVERY = 10


@dataclass
class Pushed:
    """One accepted task."""

    task: str
    at: float
    #: Whether a replica had it before the master was lost.
    replicated: bool = False


@dataclass
class Producer:
    """Pushes tasks at a steady pace from a thread of its own, and notes which were accepted.

    Parameters:
      push: enqueues one task and returns its id.
      confirm: returns when a replica has what this thread wrote.
      pause: seconds between two pushes.
    """

    push: Callable[[], str]
    confirm: Callable[[list[str]], None]
    pause: float = 0.01
    accepted: list[Pushed] = field(default_factory=list)
    refused: int = 0
    #: Whether there is a replica that could confirm.
    confirms: bool = True

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def _go(self) -> None:
        unsure: list[Pushed] = []
        while not self._stopped.wait(self.pause):
            try:
                task = self.push()
                unsure.append(Pushed(task, time.monotonic()))
                self.accepted.append(unsure[-1])
                if self.confirms and len(unsure) >= CONFIRM_EVERY:
                    self.confirm([pushed.task for pushed in unsure])
                    for pushed in unsure:
                        pushed.replicated = True
                    unsure = []
            except (redis.RedisError, OSError):
                self.refused += 1
                unsure = []  # Whoever confirms now is another server.

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()


@dataclass(frozen=True)
class Outcome:
    """What a failover did. Seconds are from the loss of the master."""

    promoted_after: float
    #: Seconds from the promotion to the first run, and to the first accepted push, that came after it.
    works_again: float
    accepts_again: float
    accepted: int
    replicated: int
    #: Accepted tasks that never ran: those that a replica had, and the others.
    lost_replicated: list[str]
    lost_others: list[str]
    ran_again: int
    rollbacks: int
    declared_dead: int

    def lines(self) -> list[str]:
        """Return what it says to people."""
        lost, others = len(self.lost_replicated), len(self.lost_others)
        return [
            f"promotion {self.promoted_after:.2f} s after the loss",
            f"from then on: work after {self.works_again:.2f} s, pushes accepted after {self.accepts_again:.2f} s",
            f"{self.accepted} accepted, {self.replicated} replicated for sure; lost: {lost} of these, {others} others",
            f"ran more than once: {self.ran_again}; rollbacks noticed: {self.rollbacks}",
            f"workers declared dead: {self.declared_dead}",
        ]


class Failover:
    """A fleet on a group of servers, under load.

    Parameters:
      group: the servers.
      fleet: on them, with nothing running yet.
      victim: the master that is to be lost.
    """

    def __init__(self, group: Group, fleet: Harness, victim: Member, workers: int = 2) -> None:
        self.group, self.fleet, self.victim = group, fleet, victim
        fleet.resurrector()
        fleet.workers(workers)
        wait_until(fleet.store.fleet.leases, 60, "a sweeper")
        self.producer = Producer(lambda: str(fleet.actors.quick.push(1).id), self._confirm)

    def _confirm(self, tasks: list[str]) -> None:
        """Wait for a replica of every server that these tasks' messages or records may be on."""
        runner, keys = self.fleet.store.runner, self.fleet.store.keys
        markers = {keys.marker(shard_of(task)) for task in tasks} | {f"{self.fleet.broker.namespace}:sync"}
        for marker in runner.one_of_each(sorted(markers)):
            if not runner.confirmed(marker, 1, 1.0):
                raise redis.TimeoutError("no replica has it")

    def lose_master(self, lose: Callable[[Member], None], load_before: float, load_after: float) -> Outcome:
        """Lose the master in the middle of the load; returns when every task that can still run has run."""
        time.sleep(load_before)  # Load, not a wait for something.
        wait_until(lambda: self.fleet.effects("ran"), 60, "the first run")
        lost_at = time.monotonic()
        lose(self.victim)
        self.producer.confirms = False
        promoted_at = self._promotion()
        works = wait_until(lambda: self._first_run(promoted_at), 120, "work after the promotion")
        accepts = wait_until(lambda: self._first_push(promoted_at), 120, "an accepted push after the promotion")
        time.sleep(load_after)
        self.producer.stop()
        return self._outcome(lost_at, promoted_at, works, accepts)

    def _promotion(self) -> float:
        others = [member for member in self.group.members if member is not self.victim]
        before = {member.port for member in others if member.role() == "master"}

        def promoted() -> bool:
            return any(member.role() == "master" and member.port not in before for member in others)

        wait_until(promoted, 120, "a promotion")
        return time.monotonic()

    def _first_run(self, since: float) -> float:
        return min((effect.mono for effect in self.fleet.effects("ran") if effect.mono > since), default=0.0)

    def _first_push(self, since: float) -> float:
        return min((pushed.at for pushed in list(self.producer.accepted) if pushed.at > since), default=0.0)

    def _outcome(self, lost_at: float, promoted_at: float, works: float, accepts: float) -> Outcome:
        accepted = list(self.producer.accepted)
        replicated = {pushed.task for pushed in accepted if pushed.replicated or pushed.at > promoted_at + 1}
        self._wait_until_quiet({pushed.task for pushed in accepted}, replicated)
        counted = self.fleet.counted("ran")
        missing = [pushed.task for pushed in accepted if pushed.task not in counted]
        said = [line for process in self.fleet.processes for line in process.text().splitlines()]
        return Outcome(
            promoted_at - lost_at,
            works - promoted_at,
            accepts - promoted_at,
            len(accepted),
            len(replicated),
            [task for task in missing if task in replicated],
            [task for task in missing if task not in replicated],
            sum(1 for count in counted.values() if count > 1),
            self.fleet.store.counters().get("rollbacks", 0),
            sum("Worker death detected" in line for line in said),
        )

    def _wait_until_quiet(self, accepted: set[str], replicated: set[str]) -> None:
        """Wait for what must run, and then until nothing is left that would."""
        wait_until(lambda: replicated <= set(self.fleet.counted("ran")), 60, "every replicated task")

        def is_quiet() -> Any:
            return not self.fleet.held("default") and not self.fleet.store.live()["due"]

        if not accepted <= set(self.fleet.counted("ran")):
            wait_until(is_quiet, 60, "an empty broker")

"""The account: what happened to every task, and whether all who counted agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from relier_cli.demo.effects import Effects
from relier_cli.demo.files import Aggregate, FileFacts, aggregate
from relier_cli.demo.killing import Death

#: Most names of files that one line of disagreement lists.
NAMED = 5


@dataclass(frozen=True)
class Account:
    """The numbers of one demo. Store: Relier's own counters. Effect log: what the tasks really did."""

    pushed: int
    completed: int  #: store
    dead: int  #: store
    discarded: int  #: store
    runs: int  #: effect log: how many runs began
    reruns: int  #: effect log: runs beyond the first of their task
    crashes: int  #: store: runs that ended with their worker
    recoveries: int  #: store: tasks put back after a crash
    late_commits: int  #: store: ends that came too late and were refused
    kills: int
    kills_wanted: int
    tasks: Aggregate
    direct: Aggregate
    disagreements: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether everything was counted alike, under as many kills as were wanted."""
        return not self.disagreements and not self.lacks_kills

    @property
    def lacks_kills(self) -> bool:
        """Whether the work was over before every kill had happened."""
        return self.kills < self.kills_wanted

    def as_dict(self) -> dict[str, Any]:
        return {"agrees": self.agrees, **asdict(self)}


@dataclass(frozen=True)
class Evidence:
    """What everybody counted.

    Parameters:
      pushed: task id -> file.
      counters: the store's.
      crashed: task id -> how many of its runs the store saw end with their worker.
      effects: the tasks' own log.
      direct: what was measured directly, without tasks.
      deaths: the kills that happened.
      kills_wanted: how many were planned.
    """

    pushed: Mapping[str, str]
    counters: Mapping[str, int]
    crashed: Mapping[str, int]
    effects: Effects
    direct: Mapping[str, FileFacts]
    deaths: list[Death]
    kills_wanted: int


def draw_up(evidence: Evidence) -> Account:
    """Draw up the account of a demo and check it."""
    effects, counters = evidence.effects, evidence.counters
    account = Account(
        pushed=len(evidence.pushed),
        completed=counters.get("completed", 0),
        dead=counters.get("dead", 0) - counters.get("dlq_left", 0),
        discarded=counters.get("discarded", 0),
        runs=effects.runs,
        reruns=effects.runs - len({task for worker in effects.workers for task in worker.started}),
        crashes=counters.get("crashes", 0),
        recoveries=counters.get("resurrections", 0),
        late_commits=counters.get("refused", 0),
        kills=len(evidence.deaths),
        kills_wanted=evidence.kills_wanted,
        tasks=aggregate(effects.measured),
        direct=aggregate(evidence.direct),
    )
    ends, differences, runs = _wrong_ends(account), _differences(evidence), _unexplained(evidence)
    return replace(account, disagreements=[*ends, *differences, *runs, *_wrong_kills(evidence)])


def _wrong_ends(account: Account) -> Iterator[str]:
    ended = account.completed + account.dead + account.discarded
    if ended != account.pushed:
        yield f"{account.pushed} tasks were pushed, but {ended} ended."
    if account.dead or account.discarded:
        yield f"{account.dead} tasks are dead and {account.discarded} discarded; none should be."


def _differences(evidence: Evidence) -> Iterator[str]:
    """Compare file by file: equal sums could hide two errors."""
    measured, direct = evidence.effects.measured, evidence.direct
    if missing := set(evidence.pushed.values()) - measured.keys():
        yield f"{len(missing)} files were pushed, but not measured: {_named(missing)}."
    if different := {name for name, facts in direct.items() if measured.get(name, facts) != facts}:
        yield f"{len(different)} files were measured differently by tasks and directly: {_named(different)}."
    if strange := (measured.keys() ^ direct.keys()) - missing:
        yield f"{len(strange)} files were measured by tasks or directly, but not by both: {_named(strange)}."
    if evidence.effects.contradictions:
        yield f"Two runs of a task disagree about: {_named(evidence.effects.contradictions)}."


def _unexplained(evidence: Evidence) -> Iterator[str]:
    """Every run but the last of a task must have been in a process that was killed, and the store must know it."""
    killed = {id(death.worker.effects) for death in evidence.deaths}
    workers = evidence.effects.workers
    tasks = {task for worker in workers for task in worker.started}
    unexplained = {task for worker in workers for task in worker.repeated}
    for task in tasks:
        earlier = evidence.effects.runs_of(task)[:-1]
        if len(earlier) > evidence.crashed.get(task, 0) or any(id(worker) not in killed for worker, _ in earlier):
            unexplained.add(task)
    if unexplained:
        names = {evidence.pushed.get(task, task) for task in unexplained}
        yield f"{len(names)} tasks ran again although no crash explains it: {_named(names)}."
    if unknown := tasks - evidence.pushed.keys():
        yield f"{len(unknown)} tasks ran that were never pushed."


def _wrong_kills(evidence: Evidence) -> Iterator[str]:
    abandoned = sum(not death.is_over(evidence.effects) for death in evidence.deaths)
    if abandoned:
        yield f"Not every task that {abandoned} of the killed workers left behind ran again."


def _named(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {rest} more" if rest > 0 else "")

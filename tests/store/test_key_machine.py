"""One idempotency key and its tasks under every order of events that Hypothesis can think of, on a real server.

`tests.model.idempotency` searches the rules; this drives the scripts. `RELIER_TEST_HYPOTHESIS=deep` searches longer.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from relier.store import RUNS, KeyTerms, Verdict
from tests.store.desk import SHARD, Desk
from tests.store.look import inconsistencies, look
from tests.store.runs import pick_from
from tests.store.test_state_machine import DEEP, PROFILE

TERMS = KeyTerms("k", "wait", False, False, ttl=3600.0, in_flight=120.0, retention=3600.0, result_ttl=3600.0)
PREFIX = f"rl:relier:{{{SHARD:02d}}}:"
MOST_TASKS = 7

FEWER = settings(PROFILE, max_examples=PROFILE.max_examples if DEEP else 80, stateful_step_count=40)

picks = st.integers(0, 999)


@dataclass(eq=False)
class Run:
    """A run, or the hooks of one that ended, in a worker."""

    worker: str
    task: str
    stamp: int
    fence: int
    only_hooks: bool


class OneKey(RuleBasedStateMachine):
    """Tasks with one key, two workers that die and are replaced, a broker whose unacknowledged copies come back."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.desk = Desk(self.client)
        self.names = itertools.count()
        self.workers = [self.new_worker(), self.new_worker()]
        self.everybody = list(self.workers)
        self.dead: list[str] = []
        self.terms: dict[str, KeyTerms] = {}
        self.copies: list[tuple[str, int]] = []
        self.runs: list[Run] = []
        self.zombies: list[Run] = []
        self.completed: list[Run] = []
        self.broken = False

    def new_worker(self) -> str:
        return f"w{next(self.names)}"

    # -- what may happen ----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.terms) < MOST_TASKS)
    @rule(policy=st.sampled_from(["wait", "wait", "join", "drop"]), hooks=st.booleans())
    def a_task_comes(self, policy: str, hooks: bool) -> None:
        task = f"t{len(self.terms)}"
        self.terms[task] = replace(TERMS, on_duplicate=policy, hooks=hooks)
        self.copies.append((task, 0))

    @precondition(lambda self: self.copies)
    @rule(copy=picks, worker=picks, repeated=st.booleans())
    def a_copy_is_taken(self, copy: int, worker: int, repeated: bool) -> None:
        self.take(self.copies.pop(copy % len(self.copies)), pick_from(self.workers, worker), repeated)

    @precondition(lambda self: self.runs)
    @rule(pick=picks, how=st.sampled_from(["commit", "commit", "retry", "dead", "discard", "hand over"]))
    def a_run_ends(self, pick: int, how: str) -> None:
        self.end(self.runs.pop(pick % len(self.runs)), how)

    @precondition(lambda self: self.zombies)
    @rule(pick=picks, how=st.sampled_from(["commit", "dead", "discard"]))
    def an_old_run_ends(self, pick: int, how: str) -> None:
        self.end(self.zombies.pop(pick % len(self.zombies)), how)

    @rule(pick=picks, lives=st.booleans())
    def a_worker_dies(self, pick: int, lives: bool) -> None:
        """Or is taken for dead, and its runs go on."""
        worker = self.workers.pop(pick % 2)
        self.dead.append(worker)
        self.workers.append(self.new_worker())
        self.everybody.append(self.workers[-1])
        gone = [run for run in self.runs if run.worker == worker]
        self.runs = [run for run in self.runs if run.worker != worker]
        self.zombies += [run for run in gone if lives and not run.only_hooks]
        self.copies += [(run.task, run.stamp) for run in gone]

    @precondition(lambda self: self.dead)
    @rule()
    def a_worker_is_buried(self) -> None:
        self.desk.bury(self.dead.pop())
        self.look()

    @rule(seconds=st.sampled_from([0, 1, 121, 301]))
    def sweepers_work(self, seconds: int) -> None:
        self.desk.wait(seconds)
        for due in self.desk.due():
            self.copies.append((due.task_id, due.fence))
            self.desk.tasks.mark_published([due], 30.0, 1800.0)
        self.look()

    @precondition(lambda self: self.terms)
    @rule(pick=picks, action=st.sampled_from(["cancel", "hold", "release"]))
    def somebody_intervenes(self, pick: int, action: str) -> None:
        self.desk.tasks.hold(pick_from(sorted(self.terms), pick), action, "somebody", SHARD)
        self.look()

    @rule(what=st.sampled_from(["idw:k", "idn"]))
    def data_is_lost(self, what: str) -> None:
        self.client.delete(PREFIX + what)

    # -- steps --------------------------------------------------------------------------------------------------

    def take(self, copy: tuple[str, int], worker: str, repeated: bool = False) -> None:
        task, stamp = copy
        nonce, terms = b"n%d" % next(self.names), self.terms[task]
        claim = self.desk.claim(worker, task, stamp, nonce=nonce, key=terms)
        if repeated and claim.fence:
            again = self.desk.claim(worker, task, stamp, nonce=nonce, key=terms)
            self.check((again.fence, again.verdict in RUNS) == (claim.fence, claim.verdict in RUNS), f"{claim} {again}")
        if claim.fence:
            only_hooks = claim.verdict not in RUNS
            self.check(not (self.completed and not only_hooks), f"{task} runs though {self.completed} completed")
            self.check(claim.outcome != "completed" or claim.result == self.result(), f"a wrong result: {claim}")
            self.runs.append(Run(worker, task, stamp, claim.fence, only_hooks))
        elif claim.verdict is Verdict.FENCED:
            self.copies.append(copy)
        self.look()

    def end(self, run: Run, how: str) -> None:
        desk, task, worker = self.desk, run.task, run.worker
        sending, terms = desk.sending(task, key=self.terms[task]), self.terms[task]
        if run.only_hooks:
            desk.settle(run.fence, task, confirmed=False)
        elif how == "commit":
            protections = json.dumps({"key": terms.terms(), "res": 3_600_000})
            result = b"result of %d" % run.fence
            if desk.tasks.commit(worker, sending, run.fence, hooks=terms.hooks, result=result, protections=protections):
                self.completed.append(run)
                desk.settle(run.fence, task, confirmed=False)
        elif how in ("retry", "dead"):
            desk.fail(run.fence, worker, task, retry=how == "retry")
        elif how == "discard":
            desk.tasks.discard(worker, sending, run.fence, "skipped")
        else:
            desk.tasks.hand_over(worker, sending, run.fence, "shutdown")
        self.look()

    def result(self) -> bytes:
        return b"result of %d" % self.completed[0].fence if self.completed else b""

    # -- what must be so ----------------------------------------------------------------------------------------

    def check(self, holds: object, problem: str) -> None:
        if not holds:
            self.broken = True
            raise AssertionError(problem)

    def look(self) -> None:
        self.check(len(self.completed) <= 1, f"{len(self.completed)} runs completed: {self.completed}")
        problems = inconsistencies(look(self.desk.store, [SHARD], self.everybody))
        self.check(not problems, "; ".join(problems))

    def teardown(self) -> None:
        if not self.broken:
            self.drain()
        self.desk.store.runner.close()

    def drain(self) -> None:
        """Without faults everything ends, and whoever completed has the one result."""
        for _ in range(3 * MOST_TASKS):
            while self.dead:
                self.a_worker_is_buried()
            for task in self.terms:
                if (record := self.desk.find(task)) is not None and record.reason == "held":
                    self.desk.tasks.hold(task, "release", "somebody", SHARD)
            self.sweepers_work(301)
            copies, self.copies = self.copies, []
            for copy in copies:
                self.take(copy, self.workers[0])
            for run in self.runs[:]:
                self.runs.remove(run)
                self.end(run, "commit")
        unended = [task for task in self.terms if (r := self.desk.find(task)) is None or r.state not in "ed"]
        self.check(not unended, f"never ended: {[self.desk.find(task) for task in unended]}")
        wrong = {task: self.kept(task) for task in self.terms if self.desk.record(task).outcome == "completed"}
        self.check(set(wrong.values()) <= {b"v" + self.result()}, f"not {self.result()!r}: {wrong}")

    def kept(self, task: str) -> Any:
        value = self.client.get(f"{PREFIX}res:{task}")
        return self.kept(value[1:].decode()) if isinstance(value, bytes) and value[:1] == b"@" else value


@pytest.mark.timeout(0 if DEEP else 600)
@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_whatever_happens_one_run_completes_and_nobody_waits_for_ever(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OneKey, "client", client, raising=False)
    run_state_machine_as_test(OneKey, settings=FEWER)

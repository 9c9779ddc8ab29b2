"""The store's scripts under every order of events that Hypothesis can think of, on a real server.

`RELIER_TEST_HYPOTHESIS=deep` searches much longer.
"""

from __future__ import annotations

import os

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from tests.store.machine import HOUR, StoreMachine
from tests.store.runs import ENDINGS, pick_from
from tests.store.world import KINDS, Copy, Kind, Process

DEEP = os.environ.get("RELIER_TEST_HYPOTHESIS") == "deep"

_EXAMPLES, _STEPS = (3000, 80) if DEEP else (250, 50)
PROFILE = settings(
    max_examples=_EXAMPLES,
    stateful_step_count=_STEPS,
    deadline=None,
    derandomize=not DEEP,
    database=None,
    suppress_health_check=list(HealthCheck),
)

#: Steps of the clock in µs.
TIMES = (0, 0, 1, 1_000, 300_000, 40_000_000)

#: What else may happen; a word that occurs twice happens more often.
WORKERS = ("beat", "compare", "take a snapshot", "return", "settle", "settle, unheard")
RESURRECTOR = ("bury", "bury some", "publish", "publish", "look", "resurrector crash")
DEATHS = ("kill", "kill the busiest", "leave", "declare dead", "declare dead and bury", "declare dead and bury")
SERVER = ("scripts lost", "clock set back", "clock set ahead", "data on disk", "data on disk", "data on disk")
MARKS = ("hold", "release", "release", "cancel")
LETTERS = ("let go", "let go", "purge", "take in")
ANYTHING = WORKERS + RESURRECTOR + DEATHS + SERVER + MARKS + LETTERS
ON_THE_WAY = ("fetched", "claim?", "hooks", "ack", "skip")

picks = st.integers(0, 999)
replies = st.sampled_from(["heard", "heard", "heard", "lost", "late"])


class Events(StoreMachine):
    """What may happen. The rules are few, so that Hypothesis draws each one often."""

    @initialize(kind=st.sampled_from(KINDS), limits=st.lists(st.integers(0, 3), min_size=1, max_size=3))
    def begin(self, kind: Kind, limits: list[int]) -> None:
        self.set_up(kind)
        for limit in limits:
            self.enqueue(Copy(next(self.world.numbers), self.new_task(limit, False), 0))

    @precondition(lambda self: len(self.world.unended()) < 4 and len(self.world.tasks) < 12)
    @rule(how=st.sampled_from(["enqueued", "enqueued", "enqueued twice", "scheduled"]), limit=st.integers(0, 3))
    def a_task_comes(self, how: str, limit: int) -> None:
        task_id = self.new_task(limit, follow_up=how == "enqueued twice")
        if how == "scheduled":
            self.schedule(task_id)
        for _ in range({"enqueued": 1, "enqueued twice": 2, "scheduled": 0}[how]):
            self.enqueue(Copy(next(self.world.numbers), task_id, 0))

    @precondition(lambda self: self.world.broker.queued())
    @rule(copy=picks, process=picks, steps=st.sampled_from([0, 1, 1]), reply=replies, ride=st.booleans())
    def a_copy_is_taken(self, copy: int, process: int, steps: int, reply: str, ride: bool) -> None:
        run = self.deliver(pick_from(self.world.broker.queued(), copy), pick_from(self.world.processes, process))
        if run:
            self.steps(pick_from(self.world.processes, process), run, steps, "commit", reply, ride)

    @precondition(lambda self: self.world.runs(*ON_THE_WAY))
    @rule(pick=picks, steps=st.integers(1, 3), reply=replies, sure=st.booleans())
    def a_run_goes_on(self, pick: int, steps: int, reply: str, sure: bool) -> None:
        process, run = pick_from(self.world.runs(*ON_THE_WAY), pick)
        self.steps(process, run, steps, "commit+hooks", reply, sure)

    @precondition(lambda self: self.world.runs("running", "close?"))
    @rule(pick=picks, ending=st.sampled_from(ENDINGS), steps=st.integers(1, 3), reply=replies, sure=st.booleans())
    def a_run_ends(self, pick: int, ending: str, steps: int, reply: str, sure: bool) -> None:
        process, run = pick_from(self.world.runs("running", "close?"), pick)
        self.steps(process, run, steps, ending, reply, sure)

    @precondition(lambda self: self.late)
    @rule(pick=picks)
    def a_delayed_request_arrives(self, pick: int) -> None:
        self.arrive(pick % len(self.late))

    @rule(
        who=picks,
        what=st.sampled_from(WORKERS + RESURRECTOR + DEATHS + SERVER + MARKS + LETTERS),
        micros=st.sampled_from(TIMES),
    )
    def something_happens(self, who: int, what: str, micros: int) -> None:
        self.clock += micros
        process = pick_from(self.world.processes, who)
        if what in WORKERS:
            self.a_worker_keeps_house(process, what)
        elif what in RESURRECTOR:
            self.the_resurrector_works(who, what)
        elif what in DEATHS:
            self.a_worker_goes(process, what)
        elif what in SERVER:
            self.the_server_changes(what)
        elif what in LETTERS:
            self.let_out(pick_from(sorted(self.world.tasks), who), what)
        else:
            self.mark(pick_from(sorted(self.world.tasks), who), what)

    def a_worker_keeps_house(self, process: Process, what: str) -> None:
        if what == "beat":
            self.beat(process)
        elif what == "return":
            self.return_unheld(process)
        elif what.startswith("settle"):
            self.settle(process, heard=what == "settle")
        else:
            self.take_snapshot(process)
            if what == "compare":
                self.reconcile(process)

    def the_resurrector_works(self, who: int, what: str) -> None:
        if what.startswith("bury"):
            self.bury_the_dead(who, some=what == "bury some")
        elif what == "publish":
            self.sweep()
        elif what == "look":
            self.peek()
        else:
            self.peeked.clear()
            self.burials.clear()

    def a_worker_goes(self, process: Process, what: str) -> None:
        if what == "kill the busiest":
            process = max(self.world.processes, key=lambda p: len(p.runs))
        if what.startswith("kill"):
            self.kill(process)
        elif what == "leave":
            self.leave(process)
        else:
            self.declare(process.identity)
        if what in ("kill the busiest", "declare dead and bury"):
            self.recover()

    def the_server_changes(self, what: str) -> None:
        if what == "scripts lost":
            self.store.client.script_flush()
        elif what == "clock set back":
            self.clock = max(self.clock - HOUR, self.earliest)
        elif what == "clock set ahead":
            self.clock += HOUR
        else:
            self.save()

    @precondition(lambda self: any(p.snapshot for p in self.world.processes))
    @rule(pick=picks)
    def a_snapshot_arrives(self, pick: int) -> None:
        self.reconcile(pick_from([p for p in self.world.processes if p.snapshot], pick))

    @precondition(lambda self: self.peeked)
    @rule(pick=picks, then=st.sampled_from(["mark", "crash", "hold back"]))
    def a_due_task_is_published(self, pick: int, then: str) -> None:
        self.publish(self.peeked.pop(pick % len(self.peeked)), then)

    @precondition(lambda self: self.saved)
    @rule()
    def the_store_loses_what_is_not_on_disk(self) -> None:
        self.roll_back()

    def teardown(self) -> None:
        if hasattr(self, "world") and not self.broken:
            self.drain()
        self.store.runner.close()


@pytest.mark.parametrize("server", ["embedded", pytest.param("redis", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.timeout(0 if DEEP else 600)
def test_every_history_keeps_the_promises(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relier.store.sweeping.BATCH", 1)  # Burials and listings come in pieces.
    monkeypatch.setattr(Events, "client", client, raising=False)
    run_state_machine_as_test(Events, settings=PROFILE)

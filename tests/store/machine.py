"""The steps of which the state machine's events consist: worker processes, the resurrector, the server, the end."""

from __future__ import annotations

import copy as copying
from dataclasses import replace

from relier.store import Due, Parking
from tests.store.judge import Saved
from tests.store.look import inconsistencies, look
from tests.store.runs import Runs, pick_from
from tests.store.world import SHARDS, Copy, Ledger, Process

FAR = 4_000_000_000_000_000
HOUR = 3_600_000_000


class StoreMachine(Runs):
    """Everything that is not a step of a run."""

    # -- worker processes ---------------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        if self.world.amqp:
            self.world.disconnect(process)
        self.world.processes[process.slot] = Process(process.slot, self.register())

    def beat(self, process: Process) -> None:
        answer = self.store.fleet.beat(process.identity).answer
        if answer == "gone" or process.identity in self.world.broker.barred:
            self.refence(process)
        self.check(answer != "unknown", "a registration was lost")

    def refence(self, process: Process) -> None:
        """Come back under another identity; code that runs cannot be stopped."""
        if self.world.amqp:
            self.world.disconnect(process)
        process.identity, process.snapshot = self.register(), None
        for run in list(process.runs):
            if run.phase in ("fetched", "claim?"):
                process.drop(run)

    def settle(self, process: Process, heard: bool) -> None:
        self.tasks.settle(process.unsettled)
        self.judge("settle", {item.task_id for item in process.unsettled})
        if heard:
            process.unsettled = []

    def take_snapshot(self, process: Process) -> None:
        number = self.tasks.begin_snapshot()
        process.snapshot = (process.identity, number, process.local(self.world.shard_of))

    def reconcile(self, process: Process) -> None:
        assert process.snapshot
        (identity, at, local), process.snapshot = process.snapshot, None
        owned = set().union(*(ids for (_, worker), ids in self.seen.owned.items() if worker == identity))
        found = self.tasks.reconcile(identity, at, local)
        self.judge("reconcile", owned)
        for run in [run for run in process.runs if run.phase == "running" and run.caller == identity]:
            if run.task in found.missing:
                self.tasks.adopt(identity, self.world.tasks[run.task].sending, run.fence)
                self.judge("adopt", {run.task}, run)

    def return_unheld(self, process: Process) -> None:
        held = {run.copy.number for run in process.runs}
        for number in self.world.broker.held_by(process.identity):
            if number not in held:
                self.world.broker.holders[number] = ""

    # -- the resurrector ----------------------------------------------------------------------------------------

    def leave(self, process: Process) -> None:
        self.store.fleet.leave(process.identity)
        self.parted.add(process.identity)
        self.kill(process)

    def declare(self, identity: str) -> None:
        if identity not in self.store.fleet.workers():
            return
        self.check(self.store.fleet.declare_dead(identity), "nobody else declared it dead")
        self.check(not self.store.fleet.declare_dead(identity), "declared dead twice")
        self.parted.add(identity)

    def bury(self, identity: str, shard: int) -> None:
        """Bury one task in one shard; return the messages when all of that is done."""
        owed = self.store.fleet.obligation(identity)
        if owed is None:
            return
        if identity not in self.burials:
            self.burials[identity] = set(SHARDS)
        left = self.burials[identity]
        if shard in left:
            owned = self.seen.owned.get((shard, identity), set())
            done = self.tasks.bury(identity, [shard], owed["how"])[shard]
            self.judge("bury", owned)
            self.check(done.left == max(0, len(owned) - 1), f"buried one of {owned}: {done}")
            if not done.left:
                left.discard(shard)
        if not left:
            if not self.world.amqp:
                self.world.broker.requeue(identity)
                self.world.broker.barred.add(identity)
            self.store.fleet.fulfilled(identity)
            del self.burials[identity]

    def bury_the_dead(self, pick: int, some: bool) -> None:
        """Declare who died, and work on one of the obligations: in one shard or in all."""
        for identity in sorted(set(self.store.fleet.workers()) - self.world.living()):
            self.declare(identity)
        owed = sorted(self.owed())
        order = SHARDS if pick % 2 else SHARDS[::-1]
        for shard in order[: 1 if some else None] if owed else ():
            self.bury(pick_from(owed, pick // 2), shard)

    def recover(self) -> None:
        """Do all that is owed to the dead, and publish what is due."""
        for identity in sorted(set(self.store.fleet.workers()) - self.world.living()):
            self.declare(identity)
        while owed := sorted(self.owed()):
            for shard in SHARDS:
                self.bury(owed[0], shard)
        self.sweep()

    def peek(self) -> None:
        waiting = {task_id: record for task_id, record in self.seen.records.items() if record.state == "s"}
        self.peeked = self.tasks.due(SHARDS, 100)[1]
        self.judge("due", {task_id for task_id, record in waiting.items() if record.is_cancelled})

    def publish(self, due: Due, then: str) -> None:
        if then != "hold back":
            self.world.broker.enqueue(Copy(next(self.world.numbers), due.task_id, due.fence, bool(due.suspicion)))
        if then != "crash":
            if then == "hold back":
                self.tasks.park([(due, Parking("no consumer"))], 600.0)
            else:
                self.tasks.mark_published([due], 30.0, 1800.0)
            self.judge("mark", {due.task_id})

    def sweep(self) -> None:
        for _ in self.world.tasks:
            self.peek()
            while self.peeked:
                self.publish(self.peeked.pop(), "mark")

    # -- the store's server -------------------------------------------------------------------------------------

    def save(self) -> None:
        names = self.client.keys("*")
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.dump(name)
        keys = dict(zip(names, pipe.execute(), strict=True))
        self.saved = Saved(keys, self.world.broker.saved(), copying.deepcopy(self.world.tasks), set(self.parted))

    def roll_back(self) -> None:
        """Bring the saved state back. Whoever lived through it knows that its connections broke."""
        assert self.saved
        saved, self.saved = self.saved, None
        pipe = self.client.pipeline(transaction=False)
        pipe.flushall()
        for name, value in saved.keys.items():
            pipe.restore(name, 0, value)
        pipe.execute()
        for task_id, task in self.world.tasks.items():
            ledger = saved.tasks.get(task_id, Ledger(task.sending))
            task.completions, task.hooks_owed = ledger.completions, ledger.hooks_owed
            task.hooks_ran |= ledger.hooks_ran
        self.parted = saved.parted
        if self.world.same_server:
            self.world.broker = saved.broker
        highest = max([self.clock, *self.seen.floors.values()])
        self.clock = self.earliest = highest + 1
        self.burials.clear()
        self.late.clear()
        for process in self.world.processes:
            self._outlive(process)
        self.seen = look(self.store, SHARDS, self.world.identities)
        self.check(not (inconsistencies(self.seen) + self._lost()), f"after a loss of data: {self._lost()}")

    def _outlive(self, process: Process) -> None:
        process.snapshot = None  # Its connection broke.
        process.unsettled = [replace(item, confirmed=False) for item in process.unsettled]
        for run in list(process.runs):
            run.doubtful = run.outlived = True
            run.connected = not self.world.same_server
            if run.phase == "skip":  # A verdict of the lost history gives no custody: ask again.
                run.phase, run.nonce, run.fence, run.unheard, run.closing = "fetched", self.new_nonce(), 0, 0, ""

    # -- the end ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Without faults, everything comes to its end."""
        self.late.clear()
        for _ in range(100):
            if self._at_rest():
                return self._forget()
            self._round()
        return self.check(False, f"no rest: {self.seen.records} {self.world.broker} {self.world.processes}")

    def _at_rest(self) -> bool:
        busy = any(p.runs or p.unsettled for p in self.world.processes) or self.world.broker.copies
        return not busy and not any(record.state in "srh" for record in self.seen.records.values())

    def _round(self) -> None:
        self.clock += HOUR
        for process in self.world.processes:
            self.beat(process)
            for run in list(process.runs):
                self.steps(process, run, 6, "commit+hooks", "heard", True)
            self.settle(process, True)
            self.take_snapshot(process)
            self.reconcile(process)
            self.return_unheld(process)
        for task_id in [task_id for task_id, at in self.seen.due.items() if at > FAR]:
            self.mark(task_id, "release")
        self.recover()
        for i, copy in enumerate(self.world.broker.queued()):
            self.deliver(copy, pick_from(self.world.processes, i))

    def _forget(self) -> None:
        for shard in SHARDS:
            self.client.hset(self.store.keys.shard(shard, "")[2], "age", 10**15)  # Watched for years.
        everything = {*self.seen.records, *self.seen.remembered}
        for _ in self.world.tasks:
            self.tasks.due(SHARDS, 100)
            self.judge("forgetting", everything)
        self.check(not self.world.unended(), f"never ended: {self.world.unended()}")
        forgotten = [t for t, ledger in self.world.tasks.items() if ledger.hooks_owed and not ledger.hooks_ran]
        self.check(not forgotten, f"hooks never ran: {forgotten}")
        left = {record.state for record in self.seen.records.values()}
        self.check(left <= {"d"}, f"not forgotten: {self.seen.records}")
        self.check(not self.seen.remembered, f"still remembered: {self.seen.remembered}")

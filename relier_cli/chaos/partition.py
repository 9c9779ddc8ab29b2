"""`rl chaos network-partition`: a worker loses its network; do others take over, and is it refused when it is back?"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from relier.brokers.adapters import adapter_of
from relier_cli.chaos import redis_away
from relier_cli.chaos.containers import By, commands, plan
from relier_cli.chaos.death import Death
from relier_cli.chaos.fates import Fates
from relier_cli.chaos.probes import Probes
from relier_cli.chaos.stage import Stage, Watch, Within, Yes, insist_on_workers, opened_stage, refuse
from relier_cli.chaos.verdict import Steps, Verdict
from relier_cli.chaos.victims import Victim, choose, until
from relier_cli.chaos.worker_kill import Seed, Worker
from relier_cli.output import AsJson, number

#: How long (s) a worker gets to come back once its network is there again.
RETURN = 60.0


class Side(StrEnum):
    """What a worker is cut off from."""

    STORE = "store"
    BROKER = "broker"
    BOTH = "both"


From = Annotated[Side, typer.Option("--from", help="What it cannot reach. On one Redis all are the same.")]
Container = Annotated[
    str | None,
    typer.Option(
        "--container", envvar="REDIS_CONTAINER", help="Take this container of the Redis away from all, by docker."
    ),
]
How = Annotated[By, typer.Option("--by", help="With a container: its networks are disconnected, or it is paused.")]
Seconds = Annotated[float, typer.Option("--seconds", min=1, max=600, help="How long; then it ends by itself.")]


def network_partition(
    worker: Worker = None,
    *,
    seconds: Seconds = 10.0,
    side: From = Side.BOTH,
    container: Container = None,
    by: How = By.DISCONNECT,
    seed: Seed = None,
    watch: Watch = False,
    within: Within = 60.0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cut a worker off from store and broker, and see others take over, and the worker change nothing when it is back.

    Its connections are closed, and new ones refused, within its process. Exit code 0: the promise held; 1: it did not;
    2: refused, nothing was done. With --container Redis itself is taken away, and put back with its names.

    Example: rl chaos network-partition --seconds 10 --watch --yes
    """
    with opened_stage() as stage:
        if container is not None and worker is None:
            steps = Steps(watch, as_json)
            _redis_away(stage, container, by, steps, seconds=seconds, within=within, yes=yes).tell(as_json)
        victim = choose(stage, worker, seed)
        if not stage.willing().keys() - {victim.worker}:
            refuse(f"Nobody could take over from {victim.worker}: no other worker allows chaos.")
        stage.insist(yes, f"This cuts worker {victim.worker} off for {seconds:g} s; what it runs has to run again.")
        verdict = Experiment(stage, victim, Steps(watch, as_json), within).run(seconds, side)
    verdict.tell(as_json)


def _redis_away(
    stage: Stage, container: str, by: By, steps: Steps, *, seconds: float, within: float, yes: bool
) -> Verdict:
    insist_on_workers(stage)
    how = plan(container, by)
    if not yes:
        refuse(f"This runs, with {seconds:g} s between: {'; '.join(commands(how))}. Add --yes to do it.")
    return redis_away.Experiment(stage, container, how, steps).run(seconds, within)


class Experiment:
    """One partition of one worker."""

    def __init__(self, stage: Stage, victim: Victim, steps: Steps, within: float) -> None:
        self._stage = stage
        self._victim = victim
        self._steps = steps
        self._within = within
        self._death = Death(stage, victim.worker, victim.told, steps)
        self._findings: list[str] = []

    def run(self, seconds: float, side: Side) -> Verdict:
        """Cut the worker off, follow its tasks, and wait for its return."""
        from relier.chaos.obedience import PARTITION

        stage, worker = self._stage, self._victim.worker
        lives = side is Side.BROKER and not adapter_of(stage.broker()).shares_redis(stage.store.client)
        with Probes(stage) as probes:
            fates = Fates(stage, worker, self._steps, probes)
            fates.add(probes.occupy(worker, stage.willing()))
            zero = stage.survey.now()
            self._steps.begin()
            stage.ask(worker, PARTITION, seconds=seconds, where=side.value)
            self._steps.note(f"worker {worker} is cut off for {seconds:g} s; it runs {number(len(fates.all), 'task')}")
            if lives:
                self._goes_on(fates, probes, seconds)
            else:
                self._loses(fates, probes, seconds)
            refused = fates.refused()
        slowest = fates.slowest(zero)
        details = {
            "worker": worker,
            "seed": self._victim.seed,
            "from": side.value,
            "cut_for": seconds,
            "gone_after": self._death.gone,
            "declared_dead_after": self._death.declared,
            "last_again_after": None if slowest is None else round(slowest, 3),
            "back_after": self._death.back,
            "back_as": self._death.back_as,
            "late_reports_refused": refused,
            "tasks": fates.data(zero),
        }
        return Verdict("network-partition", self._held(fates, slowest, lives), self._steps, self._findings, details)

    def _held(self, fates: Fates, slowest: float | None, lives: bool) -> str:
        worker, back = self._victim.worker, f"it was back after {self._death.back or 0:.1f} s."
        if lives:
            return f"{number(len(fates.all), 'task')} of {worker} ended there, each once, without its broker; {back}"
        last = "" if slowest is None else f", the last after {slowest:.2f} s"
        tasks = number(len(fates.suffered), "task")
        return f"{tasks} of {worker} ran again elsewhere{last}; {back} Nothing that it did meanwhile has counted."

    # -- cut off from the store: others take over -------------------------------------------------------------------

    def _loses(self, fates: Fates, probes: Probes, seconds: float) -> None:
        worker = self._victim.worker

        def is_over() -> bool:
            probes.holding.keep()
            self._death.look()
            fates.look()
            return fates.settled and self._death.declared is not None

        until(is_over, self._within)
        self._findings += fates.findings(self._within)
        if self._death.gone is None:
            self._findings.append(f"Worker {worker} was not cut off within {self._within:g} s.")
        elif self._death.declared is None:
            self._findings.append(f"Nobody declared worker {worker} dead within {self._within:g} s.")
        self._await_return(probes, seconds)
        self._findings += fates.undone()

    # -- cut off from the broker alone: it ends what it runs --------------------------------------------------------

    def _goes_on(self, fates: Fates, probes: Probes, seconds: float) -> None:
        def is_over() -> bool:
            probes.holding.keep()
            self._death.look()
            fates.look()
            return self._steps.now > seconds

        until(is_over, seconds + 1)
        probes.holding.release()

        def has_ended() -> bool:
            fates.look()
            return fates.settled

        until(has_ended, self._within)
        if self._death.declared is not None:
            self._findings.append(f"Worker {self._victim.worker} was declared dead although it reached the store.")
        if again := [fate.task.task_id for fate in fates.all.values() if fate.again_at is not None]:
            self._findings.append(f"{number(len(again), 'task')} ran elsewhere as well: {', '.join(again[:3])}.")
        if not fates.settled:
            self._findings.append(f"Not every task ended within {self._within:g} s.")
        self._await_return(probes, seconds)

    def _await_return(self, probes: Probes, seconds: float) -> None:
        """See that the worker is back, and takes tasks again."""
        left = max(0.0, seconds - self._steps.now)
        worker = self._victim.worker

        def is_back() -> bool:
            probes.holding.keep()
            return self._steps.now >= seconds and self._death.look_for_its_return()

        if not until(is_back, left + RETURN):
            self._findings.append(f"Worker {worker} did not come back within {RETURN:g} s.")
            return
        back = self._death.back_as or worker
        probes.occupy(back, self._stage.willing())
        self._steps.note("it takes tasks again")

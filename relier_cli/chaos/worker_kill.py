"""`rl chaos worker-kill`: a worker kills itself; do its tasks run elsewhere?"""

from __future__ import annotations

from typing import Annotated

import typer

from relier_cli.chaos.death import Death
from relier_cli.chaos.fates import Fates
from relier_cli.chaos.probes import Probes
from relier_cli.chaos.stage import Stage, Watch, Within, Yes, opened_stage
from relier_cli.chaos.verdict import Steps, Verdict
from relier_cli.chaos.victims import Victim, choose, insist_on_successors, until
from relier_cli.output import AsJson, number

Worker = Annotated[
    str | None, typer.Argument(metavar="[WORKER]", help="Id, a unique prefix of one, or host name. Default: by --seed.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Choose the worker by this number. Default: at random.")]


def worker_kill(
    worker: Worker = None,
    *,
    seed: Seed = None,
    watch: Watch = False,
    within: Within = 60.0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """SIGKILL a worker from within, and watch its tasks run elsewhere, each with one end. Tasks of our own join them.

    Exit code 0: the promise held; 1: it did not; 2: refused, nothing was done.

    Example: rl chaos worker-kill --seed 7 --watch --yes
    """
    with opened_stage() as stage:
        victim = choose(stage, worker, seed)
        insist_on_successors(stage, victim)
        stage.insist(yes, f"This kills worker {victim.worker}, and what it runs has to run again.")
        verdict = experiment(stage, victim, Steps(watch, as_json), within)
    verdict.tell(as_json)


def experiment(stage: Stage, victim: Victim, steps: Steps, within: float) -> Verdict:
    """Kill the victim, and follow its tasks."""
    from relier.chaos.obedience import KILL

    dead = victim.worker
    with Probes(stage) as probes:
        fates = Fates(stage, dead, steps, probes)
        fates.add(probes.occupy(dead, stage.willing()))
        zero = stage.survey.now()
        steps.begin()
        stage.ask(dead, KILL)
        steps.note(f"worker {dead} was told to kill itself; it runs {number(len(fates.all), 'task')}")
        fates.add(probes.running_on(dead))
        told = Death(stage, dead, victim.told, steps)

        def is_over() -> bool:
            probes.holding.keep()
            told.look()
            fates.look()
            return fates.settled and told.declared is not None

        until(is_over, within)
        findings = fates.findings(within)
    if told.gone is None:
        findings.append(f"Worker {dead} did not die within {within:g} s.")
    elif told.declared is None:
        findings.append(f"Nobody declared worker {dead} dead within {within:g} s.")
    slowest = fates.slowest(zero)
    last = "" if slowest is None else f", the last after {slowest:.2f} s"
    held = f"{number(len(fates.suffered), 'task')} of {dead} ran again elsewhere{last}, and each has one end or runs."
    details = {
        "worker": dead,
        "seed": victim.seed,
        "gone_after": told.gone,
        "declared_dead_after": told.declared,
        "last_again_after": None if slowest is None else round(slowest, 3),
        "tasks": fates.data(zero),
    }
    return Verdict("worker-kill", held, steps, findings, details)

"""`rl chaos verify`: does the whole system keep what it promises, now that the dust has settled?"""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Any

import typer

from relier.auditing import take_account
from relier.leases import MEMBER, SLOTS
from relier.store.survey import NO_CONSUMER, PARKED
from relier_cli.audit import as_data
from relier_cli.chaos.stage import Stage, Watch, opened_stage
from relier_cli.chaos.verdict import Steps, Verdict
from relier_cli.output import AsJson, number

#: How late (s) a task may be published before it counts as stranded.
LATE = 10.0
#: Pause (s) between two looks at a system in which something is still to happen.
LOOK = 0.5

Within = Annotated[float, typer.Option("--within", min=0, help="Seconds in which what is under way must have settled.")]


def verify(*, watch: Watch = False, within: Within = 60.0, as_json: AsJson = False) -> None:
    """Check that every accepted task is accounted for, and that nothing is stranded. Changes nothing.

    What is under way, as after a death, gets time to settle. Exit code 0: the promise holds; 1: it does not.

    Example: rl chaos verify --json
    """
    with opened_stage() as stage:
        verdict = check(stage, Steps(watch, as_json), within)
    verdict.tell(as_json)


def check(stage: Stage, steps: Steps, within: float) -> Verdict:
    """Look until all is well, or time is over."""
    end, seen = time.monotonic() + within, [""]
    while True:
        findings, details = _look(stage)
        if findings != seen:
            steps.note(" ".join(findings) or "all is well")
            seen = findings
        if not findings or time.monotonic() > end:
            break
        time.sleep(LOOK)
    held = f"{details['accepted']} accepted tasks are accounted for; nothing is stranded."
    return Verdict("verify", held, steps, findings, details)


def _look(stage: Stage) -> tuple[list[str], dict[str, Any]]:
    account = take_account(stage.store, stage.broker(), stage.settings)
    told = as_data(account)
    silent, owed, unswept = _fleet(stage)
    late, unconsumed = _waiting(stage)
    findings = []
    if not account.adds_up:
        findings.append("The account does not add up: rl audit says where.")
    if silent:
        findings.append(f"Silent, and not declared dead: {', '.join(silent)}.")
    if owed:
        findings.append(f"The tasks of dead workers are not all put back: {', '.join(owed)}.")
    if unswept:
        findings.append("Nobody puts back the tasks of dead workers.")
    if late:
        some = ", ".join(late[:3]) + ", …" * (len(late) > 3)
        findings.append(f"{number(len(late), 'task')} should have been published {LATE:g} s ago: {some}.")
    details = {
        **{name: told[name] for name in ("accepted", "completed", "dead_letters", "discarded", "waiting", "running")},
        "adds_up": account.adds_up,
        "silent": silent,
        "not_put_back": owed,
        "late": late,
        "without_consumer": dict(sorted(unconsumed.items())),
    }
    return findings, details


def _fleet(stage: Stage) -> tuple[list[str], list[str], bool]:
    """Return who is silent, whose tasks are owed, and whether there are workers and nobody sweeps."""
    fleet, seen = stage.fleet(), stage.store.fleet.observe()
    present = stage.store.fleet.present(sorted(fleet))
    holders = {slot: lease.split("|") for slot, lease in seen.leases.items() if not slot.startswith(MEMBER)}
    held = {slot for slot, parts in holders.items() if len(parts) == 3 and parts[1] in fleet}
    silent = sorted(worker for worker, is_there in present.items() if not is_there)
    return silent, sorted(seen.obligations), bool(fleet) and not held.issuperset(SLOTS)


def _waiting(stage: Stage) -> tuple[list[str], Counter[str]]:
    """Return the tasks that somebody should have published, and of each queue without consumers how many wait."""
    now = stage.survey.now()
    late, unconsumed = [], Counter[str]()
    for task in stage.survey.all():
        if task.state != "s":
            continue
        if task.reason == NO_CONSUMER:
            unconsumed[task.queue] += 1
        if task.reason not in PARKED and 0 < task.due_at < now - LATE:
            late.append(task.task_id)
    return sorted(late), unconsumed

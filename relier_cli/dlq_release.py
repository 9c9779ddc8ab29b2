"""`rl dlq release`, `retry-all` and `purge`: the ways out of the DLQ."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from relier.dlq import PATIENCE, Canary, DeadLetters, Letter, Place, Planned, Wanted
from relier.errors import RelierError
from relier.settings import Settings, get_settings
from relier.store import Store
from relier.store.connection import UNAVAILABLE
from relier_cli.actors import load_actors
from relier_cli.dlq_plan import Prospect, prospects, show_plan
from relier_cli.holding import resuming
from relier_cli.letter_filters import Filters, Limit, filtered
from relier_cli.lookup import find, insist_on_whole
from relier_cli.opening import opened_store, who
from relier_cli.output import AsJson, print_json, print_text
from relier_cli.typos import tell_unknown_filters

#: What an outcome means to people.
_WHY = {
    "pending": "its callbacks are not done yet, try again",
    "newer": "a newer Relier wrote it",
    "superseded": "superseded: another task has had its job key since",
    "unknown": "unknown",
    "gone": "no dead letter any more",
}

#: After which it is told how far it came.
_CUT_SHORT: tuple[type[BaseException], ...] = (KeyboardInterrupt, *UNAVAILABLE)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would happen.")]


def _json_of(kind: type, value: str | None) -> Any:
    if value is None:
        return None
    try:
        data = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"this is no JSON: {error}") from None
    if not isinstance(data, kind):
        raise typer.BadParameter("a JSON list is wanted" if kind is list else "a JSON object is wanted")
    return data


# -- one by one ---------------------------------------------------------------------------------------------------


def release(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="The tasks' ids, each of them whole.")],
    *,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="Other positional arguments, a list. One letter only.")
    ] = None,
    kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Other keyword arguments, an object. One letter only.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let dead letters run again: attempts begin anew, crashes stay counted, and one run at least is given.

    Other arguments are compared with the actor's parameters where RELIER_ACTORS names its module, and the message is
    signed again when there are keys. A letter whose message was refused cannot be edited.

    Example: rl dlq release 3f6c… --args '["a text now"]'
    """
    new_args, new_kwargs = _json_of(list, args), _json_of(dict, kwargs)
    edit = args is not None or kwargs is not None
    if edit and len(task_ids) != 1:
        raise typer.BadParameter("arguments can be edited of one letter at a time")
    settings = get_settings()
    with opened_store(settings) as store:
        one = task_ids[0]
        for task_id in task_ids:
            insist_on_whole(store, task_id)
        outcomes = [_edited(store, settings, one, new_args, new_kwargs)] if edit else _released(store, task_ids)
    if as_json:
        print_json(outcomes)
    else:
        for outcome in outcomes:
            print_text(f"{outcome['id']}: {outcome['outcome']}")
    raise typer.Exit(0 if all(outcome["outcome"] == "released" for outcome in outcomes) else 1)


def _released(store: Store, task_ids: list[str]) -> list[dict[str, Any]]:
    outcomes = DeadLetters(store, who()).release(*task_ids)
    return [{"id": task_id, "outcome": _told(store, task_id, outcomes[task_id])} for task_id in outcomes]


def _edited(store: Store, settings: Settings, task_id: str, args: Any, kwargs: Any) -> dict[str, Any]:
    loaded = load_actors(settings)
    dead = DeadLetters(store, who())
    outcome, unchecked = dead.release_edited(task_id, args, kwargs, settings=settings, broker=loaded.broker)
    unchecked = loaded.problem or unchecked if unchecked else ""
    if unchecked and outcome == "released":
        typer.echo(f"The arguments were not compared with the actor's parameters: {unchecked}.", err=True)
    return {"id": task_id, "outcome": _told(store, task_id, outcome), "unchecked": unchecked or None}


def _told(store: Store, task_id: str, outcome: str) -> str:
    """Return what happened to one letter, in words."""
    if outcome != "gone":
        return _WHY.get(outcome, outcome)
    try:
        return f"no dead letter, it is {find(store, task_id).status}"
    except RelierError:
        return _WHY["unknown"]


# -- many ---------------------------------------------------------------------------------------------------------


@filtered
def retry_all(
    filters: Filters,
    *,
    limit: Limit = None,
    dry_run: DryRun = False,
    rate: Annotated[float | None, typer.Option(min=0.01, help="At most so many a second.")] = None,
    canary: Annotated[
        bool, typer.Option("--canary", help="Release one, wait for its end, and go on only if it completed.")
    ] = False,
    canary_timeout: Annotated[float, typer.Option(min=0, help="Longest wait (s) for the canary's end.")] = PATIENCE,
    as_json: AsJson = False,
) -> None:
    """Let all dead letters run again that fit the filters and are there now, the oldest first.

    What dies again meanwhile stays a dead letter. Ended half-way, it can be repeated: each letter is released or there.

    Example: rl dlq retry-all --actor send_invoice --canary --rate 50
    """
    with opened_store() as store:
        dead = DeadLetters(store, who())
        wanted = filters.wanted(store)
        if dry_run:
            matching, plan = _plan(dead, wanted, limit)
            if not matching:
                tell_unknown_filters(dead, wanted)
            _report_plan(matching, plan, "released", as_json)
            return
        places = dead.places(wanted, limit)
        if not places:
            tell_unknown_filters(dead, wanted)
        bird = dead.try_one(places, canary_timeout, lambda letter: _insist_on_runner(store, letter)) if canary else None
        tally = Counter({"released": 1} if bird else {})
        sings = not canary or (bird is not None and bird.succeeded)
        if sings:
            rest = [place for place in places if bird is None or place.task_id != bird.task_id]
            _go(dead, "release_all", rest, tally, as_json, rate=rate)
    _report(len(places), tally, "released", as_json, bird)
    if not sings and places and not as_json:
        why = "The canary did not complete" if bird else "None of them can be released now"
        print_text(f"{why}, so no other was released: rl tasks inspect {bird.task_id if bird else places[0].task_id}")
    raise typer.Exit(0 if sings or not places else 1)


def _insist_on_runner(store: Store, letter: Letter) -> None:
    """Raise `RelierError` for a canary that nobody could run now: it would wait, and so would who waits for its end."""
    planned = Planned(letter.actor, letter.queue, letter.payload_version, 1)
    (prospect,) = prospects(store, [planned], get_settings())
    if prospect.waits_for:
        resume = resuming(prospect.waits_for, letter.queue, letter.actor)
        raise RelierError(
            f"The canary {letter.task_id} of {letter.actor!r} in {letter.queue!r} would wait: {prospect.waits_for}."
            f" Nothing was released.{resume and f' To let it go on: {resume}'}"
        )


@filtered
def purge(
    filters: Filters,
    *,
    limit: Limit = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters, without a filter.")] = False,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: nothing is done without.")] = False,
    as_json: AsJson = False,
) -> None:
    """Discard dead letters for good. They are counted as `discarded: purged`; `rl dlq export` keeps them before.

    Example: rl dlq purge --actor send_invoice --until 30d --yes
    """
    with opened_store() as store:
        dead = DeadLetters(store, who())
        wanted = filters.wanted(store)
        if wanted.everything and not everything:
            _misuse("Which? Give a filter, or --all for all dead letters.")
        if dry_run:
            matching, plan = _plan(dead, wanted, limit)
            if not matching:
                tell_unknown_filters(dead, wanted)
            _report_plan(matching, plan, "discarded", as_json)
            return
        if not yes:
            _misuse("This discards dead letters for good. Add --yes to do it, --dry-run to see what would go.")
        places = dead.places(wanted, limit)
        if not places:
            tell_unknown_filters(dead, wanted)
        tally = Counter[str]()
        _go(dead, "purge", places, tally, as_json)
    _report(len(places), tally, "purged", as_json)


def _misuse(text: str) -> None:
    typer.echo(text, err=True)
    raise typer.Exit(2)


def _go(
    dead: DeadLetters, what: str, places: list[Place], tally: Counter[str], quiet: bool, **more: float | None
) -> None:
    """Release or purge, with the progress on a terminal; tells how far it came when it is interrupted."""
    shown = not quiet and sys.stderr.isatty()

    def told(outcomes: Mapping[Place, str]) -> None:
        tally.update(outcomes.values())
        if shown:
            typer.echo(f"\r{tally.total()}", err=True, nl=False)

    try:
        getattr(dead, what)(places, told=told, **more)
    except _CUT_SHORT:
        typer.echo(
            f"\nInterrupted: {', '.join(f'{n} {name}' for name, n in tally.items()) or 'nothing done'}.", err=True
        )
        raise
    if shown and places:
        typer.echo("\r", err=True, nl=False)


def _report(matching: int, tally: Counter[str], done: str, as_json: bool, bird: Canary | None = None) -> None:
    skipped = {name: n for name, n in tally.items() if name != done}
    left = matching - tally.total()
    if as_json:
        canary = bird and {"id": bird.task_id, "outcome": bird.outcome, "succeeded": bird.succeeded}
        data = {"dry_run": False, "matching": matching, done: tally[done], "skipped": skipped, "left": left}
        print_json({**data, "canary": canary} if done == "released" else data)
        return
    if bird is not None:
        print_text(f"canary {bird.task_id}: {bird.outcome}")
    for name, n in skipped.items():
        typer.echo(f"{n} not {done}: {_WHY.get(name, name)}")
    typer.echo(f"{tally[done]} of {matching} dead letters {done}.")


# -- what would happen --------------------------------------------------------------------------------------------


def _plan(dead: DeadLetters, wanted: Wanted, limit: int | None) -> tuple[int, list[Prospect]]:
    plan = dead.plan(wanted, limit)
    return sum(planned.letters for planned in plan), prospects(dead.store, plan, get_settings())


def _report_plan(matching: int, plan: list[Prospect], what: str, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": True, "matching": matching, "plan": [prospect.as_data() for prospect in plan]})
    else:
        show_plan(plan, runs=what == "released")
        typer.echo(f"{matching} dead letters would be {what}.")

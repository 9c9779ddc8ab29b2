"""`rl queue`: what waits in which queue, who consumes it, and pausing it."""

from __future__ import annotations

import difflib
import time
from typing import Annotated, Any

import typer
from dramatiq.common import q_name

from relier.brokers import default_broker
from relier.errors import RelierError
from relier.holds import lift_actor, pause_queue, resume_queue
from relier.queue_states import QueueState, QueueStates
from relier.queues import RECOVERY_QUEUE, is_internal
from relier.settings import Settings, get_settings
from relier.store import Store
from relier.store.holds import ACTOR_PARKED, PAUSED, Hold
from relier_cli import purge
from relier_cli.application import application
from relier_cli.completing import complete_actor, complete_queue
from relier_cli.holding import resuming
from relier_cli.opening import opened_store, who
from relier_cli.output import AsJson, iso, print_json, print_table, print_text, span

app = typer.Typer(help="Queues: what waits, who consumes it; pause, resume and purge them.", no_args_is_help=True)
app.command()(purge.purge)

QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.", autocompletion=complete_queue)]


@app.command("list")
def list_queues(as_json: AsJson = False) -> None:
    """List every queue that the settings, actors of RELIER_ACTORS, workers, the store or the broker know.

    `messages` wait in the broker (- where it cannot tell), `due` and `scheduled` in the store. A queue that nobody
    consumes or declares, and one that is paused, says so. Parked actors are named below.

    Example: rl queue list --json
    """
    settings = get_settings()
    known = application(settings)
    with opened_store(settings) as store:
        states = QueueStates(store, known.broker, {*settings.public_queues, *known.queues})
        found, now = states.all(), time.time()
    warnings = known.trouble + ([f"The broker does not answer: {states.trouble}"] if states.trouble else [])
    if as_json:
        parked = [{"actor": hold.name, **hold_data(hold)} for hold in states.parked]
        print_json({"queues": [row(state, now) for state in found], "parked": parked, "warnings": warnings})
    else:
        show(found, now, [*map(_parked, states.parked), *warnings])


def row(state: QueueState, now: float) -> dict[str, Any]:
    """Return a queue as the JSON of the list has it."""
    oldest = oldest_of(state)
    return {
        "name": state.name,
        "broker": state.broker,
        "messages": state.depth,
        "due": state.waiting.due,
        "scheduled": state.waiting.scheduled,
        "reasons": state.waiting.reasons,
        "oldest_at": iso(oldest),
        "oldest_age": round(max(0.0, now - oldest), 3) if oldest else None,
        "consumers": state.consumers,
        "declared": state.declared,
        "paused": state.paused and hold_data(state.paused),
        "notes": notes_of(state),
    }


def oldest_of(state: QueueState) -> float:
    """Return when the oldest task was made that waits for a worker (seconds since the epoch); 0 when none is known."""
    return min(filter(None, (state.oldest_message, state.waiting.oldest)), default=0.0)


def hold_data(hold: Hold) -> dict[str, Any]:
    return {"since": iso(hold.since), "by": hold.by, "reason": hold.reason or None}


def notes_of(state: QueueState) -> list[str]:
    """Return what is odd about a queue."""
    notes = ["nobody consumes it"] if not state.consumers and (state.declared or not state.is_empty) else []
    if not state.declared and state.name != RECOVERY_QUEUE and not state.consumers:
        notes.append("nobody declares it")
    return notes


def show(states: list[QueueState], now: float, notes: list[str]) -> None:
    """Print a line for each queue, and the notes below."""
    brokers = sorted({state.broker for state in states})
    headers = ["queue", "messages", "due", "scheduled", "oldest", "consumers", "state"]
    rows = []
    for state in states:
        oldest = oldest_of(state)
        cells = [state.name, state.depth, state.waiting.due, state.waiting.scheduled]
        rows.append(
            [*cells, span(now - oldest) if oldest else None, len(state.consumers), _state(state)]
            + ([state.broker] if len(brokers) > 1 else [])
        )
    print_table([*headers, "broker"] if len(brokers) > 1 else headers, rows)
    for note in notes:
        print_text(note)


def _state(state: QueueState) -> str:
    parts = notes_of(state)
    if state.paused:
        parts.insert(0, f"paused since {iso(state.paused.since)} by {state.paused.by}{_because(state.paused)}")
    return "; ".join(parts)


def _parked(hold: Hold) -> str:
    """Return what there is to tell of a parked actor."""
    since = f"The actor {hold.name!r} is parked since {iso(hold.since)} by {hold.by}{_because(hold)}."
    return f"{since} Its tasks wait for other code, or for: {resuming(ACTOR_PARKED, '', hold.name)}"


def _because(hold: Hold) -> str:
    return f" ({hold.reason})" if hold.reason else ""


@app.command()
def pause(
    queue: QueueName,
    reason: Annotated[str, typer.Option(help="Why, for those who find it paused.")] = "",
    as_json: AsJson = False,
) -> None:
    """Let no worker start another task of a queue, within 2 seconds and until `rl queue resume`.

    Running tasks go on. What was fetched goes back to the broker; retries, delays and orphans wait in the store. It
    survives the restart of everything.

    Example: rl queue pause default --reason "the payment provider is down"
    """
    settings = get_settings()
    with opened_store(settings) as store:
        insist_on_known(store, settings, queue)
        done, hold = pause_queue(store, queue, who(), reason)
        store.durability.wait()  # Else a crash of Redis in this second would let it go on, and nobody would know.
    _tell("queue", queue, "paused" if done else "already paused", hold, as_json)


@app.command()
def resume(
    queue: Annotated[
        str | None, typer.Argument(metavar="[QUEUE]", help="The queue's name.", autocompletion=complete_queue)
    ] = None,
    actor: Annotated[
        str | None, typer.Option(help="Resume a parked actor instead.", autocompletion=complete_actor)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let the tasks of a paused queue, or of a parked actor, go on.

    Example: rl queue resume default
    """
    if (queue is None) == (actor is None):
        raise typer.BadParameter("Name one queue, or --actor NAME.")
    with opened_store() as store:
        holds = store.fleet.holds()
        kind, name = ("queue", queue) if queue is not None else ("actor", str(actor))
        held = set(holds.queues if kind == "queue" else holds.actors)
        if name not in held:
            others = holds.actors if kind == "queue" else holds.queues
            raise RelierError(_not_held(kind, str(name), held, name in others))
        lift = resume_queue if kind == "queue" else lift_actor
        done, hold = lift(store, str(name))
        store.durability.wait()
    _tell(kind, str(name), "resumed" if done else "not paused", hold, as_json)


def insist_on_known(store: Store, settings: Settings, queue: str) -> None:
    """Raise `RelierError` for a queue that is none, or that nobody knows: a typo would pause nothing, silently."""
    if is_internal(queue):
        raise RelierError(f"{queue!r} is Relier's own queue: stop the resurrector instead.")
    if q_name(queue) != queue or queue.endswith(".XQ"):
        raise RelierError(f"{queue!r} is no queue of its own: name {q_name(queue).removesuffix('.XQ')!r}.")
    states = QueueStates(store, default_broker(settings), {*settings.public_queues, RECOVERY_QUEUE})
    names = states.names()
    if queue in names or states.is_in_broker(queue):
        return
    raise RelierError(f"Nobody knows a queue {queue!r}{_hint(queue, names)}")


def _not_held(kind: str, name: str, held: set[str], is_other: bool) -> str:
    """Say what is not held; `is_other`: a hold of the other kind has this name, and is meant, it seems."""
    what = f"The queue {name!r} is not paused" if kind == "queue" else f"The actor {name!r} is not parked"
    if is_other:
        there, reason = ("actor is parked", ACTOR_PARKED) if kind == "queue" else ("queue is paused", PAUSED)
        return f"{what}, but the {there}: {resuming(reason, name, name)}"
    return what + (_hint(name, held) if held else ".")


def _hint(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f". There are {', '.join(map(repr, sorted(known)))}."


def _tell(kind: str, name: str, outcome: str, hold: Hold | None, as_json: bool) -> None:
    if as_json:
        print_json({kind: name, "outcome": outcome, "hold": hold and hold_data(hold)})
    elif outcome == "already paused" and hold is not None:
        print_text(f"{name}: already paused since {iso(hold.since)} by {hold.by}{_because(hold)}")
    else:
        print_text(f"{name}: {outcome}")

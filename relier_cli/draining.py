"""`rl worker drain` and `rl worker restart`: take workers out of service from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from relier.errors import RelierError
from relier.hosting import Hosting
from relier.orders import ENDS
from relier.store import Store
from relier_cli.completing import complete_worker
from relier_cli.opening import opened_store, who
from relier_cli.output import AsJson, print_json, print_table

#: How long (s) a worker may take to answer: one whose interpreter a task holds answers later.
ANSWER = 10.0
#: How much longer (s) than its own time for running tasks a worker is waited for by default.
GRACE = 30.0
#: How often (s) the fleet is looked at meanwhile.
LOOK = 0.1

Workers = Annotated[
    list[str],
    typer.Argument(
        metavar="WORKER...", help="Id, a unique prefix of one, or host name.", autocompletion=complete_worker
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it is done, not when the worker has agreed.")]
Timeout = Annotated[
    float | None,
    typer.Option(min=0, help="Longest wait in seconds. Default: what the worker gives its tasks, and 30 s more."),
]


@dataclass(slots=True)
class Outcome:
    """What became of one order."""

    worker: str
    #: draining; drained (idle); ended; restarted
    state: str
    #: The worker that was started in its place, once it is there.
    successor: str | None = None


def drain(workers: Workers, wait: Wait = False, timeout: Timeout = None, as_json: AsJson = False) -> None:
    """Take workers out of service: they fetch nothing, return what they had not begun, and hand over what takes longer.

    Then the process ends, and `rl worker start` starts no other in its place. One of several processes of a `dramatiq`
    stays up, idle, since its end would end the others.

    Example: rl worker drain web-1 --wait
    """
    _order("drain", workers, wait, timeout, as_json)


def restart(workers: Workers, wait: Wait = False, timeout: Timeout = None, as_json: AsJson = False) -> None:
    """Drain workers, one after the other with --wait, and let others be started in their place.

    `rl worker start` does that at once, after a `dramatiq -p 1` or a resurrector whatever supervises it must. One of
    several processes of a `dramatiq` cannot be restarted alone.

    Example: rl worker restart web-1:4711 --wait
    """
    _order("restart", workers, wait, timeout, as_json)


def _order(what: str, named: list[str], wait: bool, timeout: float | None, as_json: bool) -> None:
    with opened_store() as store:
        fleet = store.fleet.workers()
        chosen = list(dict.fromkeys(find_worker(fleet, name) for name in named))
        if what == "restart":
            refuse_shared(fleet, chosen)
        outcomes = [order(store, worker, what, wait, timeout) for worker in chosen]
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    else:
        print_table(("worker", "state", "successor"), [(o.worker, o.state, o.successor) for o in outcomes])


def find_worker(fleet: dict[str, dict[str, Any]], name: str) -> str:
    """Return the id of the worker that a name means. Raises `RelierError` naming the candidates.

    An empty name, as a script's unset variable gives, is misuse: it would be a prefix of every id.
    """
    if not name.strip():
        raise typer.BadParameter("A worker's name is empty: give an id, a unique prefix of one, or a host name.")
    if name in fleet:
        return name
    found = sorted(worker for worker, told in fleet.items() if worker.startswith(name) or told.get("host") == name)
    if len(found) == 1:
        return found[0]
    if found:
        raise RelierError(f"{name!r} means {len(found)} workers; name one of them: {_listed(found)}.")
    known = f"There are {_listed(sorted(fleet))}." if fleet else "There is none at all."
    raise RelierError(f"No worker is named {name!r}. {known}")


def _listed(workers: Iterable[str]) -> str:
    return ", ".join(workers)


def refuse_shared(fleet: dict[str, dict[str, Any]], chosen: list[str]) -> None:
    """Raise `RelierError` when a restart of one of these would end others."""
    for worker in chosen:
        hosting = fleet[worker].get("hosting")
        if hosting == Hosting.SHARED:
            raise RelierError(
                f"Worker {worker} is one of several processes of a dramatiq, which ends them all when one ends. Restart"
                " that dramatiq, or use `rl worker start`, which restarts each by itself."
            )
        if hosting == Hosting.EMBEDDED:
            raise RelierError(f"Worker {worker} runs in a process of your application. Restart that process.")


def order(store: Store, worker: str, what: str, wait: bool, timeout: float | None) -> Outcome:
    """Ask one worker, and wait for its answer, or until it is done. Raises `RelierError` when that takes too long."""
    fleet = store.fleet.workers()
    told = fleet.get(worker, {})
    if not _answers(store, worker, what):
        raise RelierError(
            f"Worker {worker} does not answer. Its version may be too old for this command, or a task holds its"
            " interpreter; SIGTERM it, or look at it: rl worker status."
        )
    patience = float(told.get("grace", 0)) + GRACE if timeout is None else timeout
    if wait and not _until(lambda: _state(store, worker) in ("drained", "ended"), patience):
        raise RelierError(f"Worker {worker} is still draining after {patience:g} s. It goes on: rl worker status.")
    outcome = Outcome(worker, _state(store, worker))
    if what == "restart" and wait:
        _await_successor(store, outcome, set(fleet), told, patience)
    elif wait and told.get("hosting") in ENDS:
        _until(lambda: _state(store, worker) == "ended", GRACE)
        outcome.state = _state(store, worker)
    return outcome


def _answers(store: Store, worker: str, what: str) -> bool:
    """Ask until somebody listens, then wait for the answer, which is another state."""
    order = {"type": what, "by": who()}
    heard = _until(lambda: store.fleet.order(worker, order) or _state(store, worker) == "ended", ANSWER)
    return heard and _until(lambda: _state(store, worker) != "alive", ANSWER)


def _state(store: Store, worker: str) -> str:
    told = store.fleet.workers().get(worker)
    return "ended" if told is None else str(told.get("state") or "alive")


def _await_successor(store: Store, outcome: Outcome, before: set[str], told: dict[str, Any], patience: float) -> None:
    def is_there() -> bool:
        fleet = store.fleet.workers()
        fresh = [worker for worker, fields in fleet.items() if worker not in before and _twins(fields, told)]
        if fresh and outcome.worker not in fleet:
            outcome.state, outcome.successor = "restarted", fresh[0]
        return outcome.successor is not None

    if not _until(is_there, patience):
        raise RelierError(f"Worker {outcome.worker} has ended, but within {patience:g} s nobody started another one.")


def _twins(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("host", "role"))


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(LOOK)
    return True

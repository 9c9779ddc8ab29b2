"""The command `rl bench`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from relier_cli.bench.ground import Ground
from relier_cli.bench.measuring import PREFETCHES, Comparison, Measuring
from relier_cli.completing import one_of
from relier_cli.demo.interruption import Interrupted, Interruption
from relier_cli.output import AsJson, print_json, print_table

PARTS = ("throughput", "recovery")


def _part(value: str | None) -> str | None:
    if value is not None and value not in PARTS:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(PARTS)}")
    return value


Only = Annotated[
    str | None,
    typer.Option(callback=_part, help=f"One of {', '.join(PARTS)}. Default: both.", autocompletion=one_of(PARTS)),
]
Here = Annotated[
    bool, typer.Option("--here", help="Use the Redis of the settings, in a namespace that is removed afterwards.")
]


def bench(
    *,
    tasks: Annotated[int, typer.Option(min=20, help="Tasks in each measurement of rates.")] = 2000,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Pairs of measurements, one after the other.")] = 3,
    kills: Annotated[int, typer.Option(min=1, max=100, help="Workers of Relier that are killed.")] = 4,
    patience: Annotated[float, typer.Option(min=0, help="Longest wait (s) for plain Dramatiq's recovery.")] = 15.0,
    only: Only = None,
    here: Here = False,
    quick: Annotated[bool, typer.Option("--quick", help="One pair of 500 tasks, one kill: a few seconds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare Relier with plain Dramatiq on this machine: enqueueing, throughput, and recovery from a SIGKILL.

    Both do the same in turn on one server: a private embedded one unless --here. Read the ratios, not the rates: those
    are of tasks that do nothing, in one process with 8 threads. Plain Dramatiq recovers too, after a minute at the
    least: how long is waited for it is said. Takes about a minute.

    Example: rl bench --quick
    """
    began = time.monotonic()
    if quick:
        tasks, rounds, kills, patience = min(tasks, 500), 1, 1, min(patience, 5.0)
    interruption = Interruption()
    try:
        with interruption.noted(), Ground(given=here) as ground:
            measuring = Measuring(ground, interruption.check, lambda text: typer.echo(f"… {text}", err=True))
            found: dict[str, Any] = {"server": ground.server, "tasks": tasks, "rounds": rounds}
            found |= {"enqueue": None, "throughput": [], "recovery": None}
            if only != "recovery":
                found |= _rates(measuring, tasks, rounds, ["default"] if quick else PREFETCHES)
            if only != "throughput":
                found["recovery"] = measuring.recovery(kills, patience).data()
    except Interrupted:
        typer.echo("Interrupted: every process of the benchmark has ended, and its keys are gone.", err=True)
        raise typer.Exit(130) from None
    found["seconds"] = round(time.monotonic() - began, 1)
    if as_json:
        print_json(found)
    else:
        show(found)


def _rates(measuring: Measuring, tasks: int, rounds: int, prefetches: Iterable[str]) -> dict[str, Any]:
    enqueued, ran = Comparison([], []), []
    for prefetch in prefetches:
        rates = measuring.rates(prefetch, tasks, rounds)
        enqueued.plain.extend(rates["enqueue"].plain)
        enqueued.relier.extend(rates["enqueue"].relier)
        ran.append({"prefetch": prefetch, **rates["throughput"].data()})
    return {"enqueue": enqueued.data(), "throughput": ran}


def show(found: dict[str, Any]) -> None:
    """Print a line for each comparison."""
    rows = [(f"throughput, prefetch {each['prefetch']}", each) for each in found["throughput"]]
    rates = ([("enqueue", found["enqueue"])] if found["enqueue"] else []) + rows
    lines = [(what, _rate(r["plain"]), _rate(r["relier"]), _ratio(r)) for what, r in rates]
    if recovery := found["recovery"]:
        lines.append(("run again after SIGKILL", _plain(recovery), _ours(recovery), _sooner(recovery)))
    print_table(("", "plain Dramatiq", "Relier", "ratio"), lines)
    typer.echo(f"on {found['server']}, in {found['seconds']:g} s")


def _rate(rate: float) -> str:
    return f"{rate:,.0f}/s"


def _ratio(of: dict[str, float]) -> str:
    between = f" ({of['lowest_ratio']:.2f} to {of['highest_ratio']:.2f})"
    return f"{of['ratio']:.2f}{between if of['lowest_ratio'] != of['highest_ratio'] else ''}"


def _plain(recovery: dict[str, Any]) -> str:
    return f"not within {recovery['plain_waited']:.0f} s" if recovery["at_least"] else f"{recovery['plain']:.2f} s"


def _ours(recovery: dict[str, Any]) -> str:
    slowest = f", slowest of {recovery['kills']}: {recovery['slowest']:.2f} s" if recovery["kills"] > 1 else ""
    return f"{recovery['relier']:.2f} s{slowest}"


def _sooner(recovery: dict[str, Any]) -> str:
    return f"{'more than ' if recovery['at_least'] else ''}{recovery['ratio']:.0f} times as soon"

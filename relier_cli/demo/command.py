"""The command `rl demo`."""

from __future__ import annotations

import json
import random
import time
from typing import Annotated

import typer

from relier_cli.demo.interruption import Interrupted, Interruption
from relier_cli.demo.options import Options

#: Fewer files are too few for a worker to be killed while it runs some.
FEWEST_FILES = 20


def demo(
    limit: Annotated[int | None, typer.Option(min=FEWEST_FILES, help="Measure only so many files.")] = None,
    seed: Annotated[int | None, typer.Option(help="Choose the moments of the kills as an earlier run did.")] = None,
    kills: Annotated[int, typer.Option(min=0, max=100, help="How many workers to kill.")] = 3,
    plain: Annotated[bool, typer.Option("--plain", help="Print lines instead of a live display.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the account as JSON; lines go to stderr.")] = False,
) -> None:
    """Kill workers under real work and see every task accounted for.

    Each .py file of Python's standard library becomes a task for two worker processes, some of which are killed with
    SIGKILL. The sum of the results is compared with one computed directly. Exit code 0: all agree; 1: they do not, or
    too few kills happened; 130: interrupted. Uses a private embedded server, or a namespace of its own at
    RELIER_REDIS_URL.

    Example: rl demo --limit 100 --kills 2
    """
    seed = random.randrange(1_000_000) if seed is None else seed
    interruption = Interruption()
    with interruption.noted():
        try:
            agrees = _run(interruption, Options(limit, kills, seed), plain, as_json)
        except Interrupted:
            typer.echo("Interrupted: every process of the demo has ended.", err=True)
            raise typer.Exit(130) from None
    raise typer.Exit(0 if agrees else 1)


def _run(interruption: Interruption, options: Options, plain: bool, as_json: bool) -> bool:
    from rich.console import Console

    from relier_cli.demo.display import Display, LiveDisplay
    from relier_cli.demo.effects import Effects
    from relier_cli.demo.report import Report
    from relier_cli.demo.run import Demo

    began = time.monotonic()
    console, effects = Console(stderr=as_json, highlight=False), Effects()
    kind = LiveDisplay if console.is_terminal and not (plain or as_json) else Display
    run = Demo(options, kind(console, effects), effects, interruption)
    account = run.run()
    report = Report(account, run, options.seed, time.monotonic() - began)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        report.show(console)
    return account.agrees

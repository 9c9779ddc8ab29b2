"""`rl slo`: is the failure rate rising, who burns the error budget, and how much of it is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from relier.settings import get_settings
from relier.slo import PERIOD, REFUSED, SHOWN, WINDOWS, Burn, Tally, burn_rates, together
from relier.store.survey import Survey
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, iso, print_json, print_table, print_text, printable

app = typer.Typer(help="Objectives: how fast actors burn their error budgets.", no_args_is_help=True)

_DAY = 86_400.0
#: Who stands for all actors together in a table.
_ALL = "(all)"
#: What answers whoever asks why.
_NEXT = {"success": "rl dlq groups --actor {}", "latency": "rl tasks inflight, rl queue list"}
_NEXT_OF_REFUSED = "rl dlq list --reason PayloadIntegrityError"


@app.callback()
def _group() -> None:
    """Objectives: how fast actors burn their error budgets."""


# -- status -----------------------------------------------------------------------------------------------------------


@app.command()
def status(
    *,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when an objective alerts (page or ticket).")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell how fast each actor burns its error budget: over an hour, six hours and three days; the fastest first.

    A burn rate is the failures divided by what the objective allows: at 1 the budget lasts 30 days. A failure is a dead
    letter; of a latency objective, a task that completed too late. It exits 0, whatever burns, but for --check.

    Example: rl slo status
    """
    settings = get_settings()
    with opened_store(settings) as store:
        burns = burn_rates(store, settings)
    everything = together(burns, settings.slo_target)
    if as_json:
        described = [described_burn(burn) for burn in burns]
        print_json({"default_target": settings.slo_target, "objectives": described, **_sums(everything)})
    else:
        show(burns, everything)
    if check and any(burn.alerts for burn in burns):
        raise typer.Exit(1)


def described_burn(burn: Burn) -> dict[str, Any]:
    """Return an objective as the JSON of `slo status`, `top` and `ui` has it."""
    return {
        "actor": burn.actor,
        "objective": burn.kind,
        "target": burn.target,
        "latency": burn.latency,
        "state": burn.state,
        "alerts": [rule._asdict() for rule in burn.alerts],
        **_sums(burn),
    }


def _sums(burn: Burn) -> dict[str, Any]:
    tallies = {window: burn.tally(window) for window in WINDOWS}
    return {
        "burn_rates": {window: round(tally.burn_rate, 6) for window, tally in tallies.items()},
        "failures": {window: tally.failures for window, tally in tallies.items()},
        "tasks": {window: tally.all for window, tally in tallies.items()},
        "budget_left": round(burn.budget_left, 6),
    }


def show(burns: list[Burn], everything: Burn) -> None:
    if not burns:
        typer.echo("No task has ended in the last 30 days, and no worker has told of an objective.")
        return
    headers = ("actor", "objective", *SHOWN, "budget left", "state")
    rows = [(burn.actor, promise(burn), *_cells(burn), burn.state) for burn in burns]
    print_table(headers, [*rows, (_ALL, "", *_cells(everything), "")])
    for line in advice(burns):
        print_text(line)


def _cells(burn: Burn) -> Iterator[str]:
    yield from (times(burn.burn_rate(window)) for window in SHOWN)
    yield percent(burn.budget_left)


def advice(burns: Iterable[Burn]) -> Iterator[str]:
    """Yield a line for each objective that burns: how, and what tells more."""
    for burn in burns:
        asks = _NEXT_OF_REFUSED if burn.actor == REFUSED else _NEXT[burn.kind].format(burn.actor)
        for rule in burn.alerts[:1]:
            long, short = (f"{times(burn.burn_rate(window))} over {window}" for window in (rule.long, rule.short))
            yield f"{burn.actor} burns {long} and {short}, above {rule.factor:g} ({rule.severity}): {asks}"
        if burn.state == "burning":
            tally, what = burn.tally("3d"), "failed" if burn.kind == "success" else "were late"
            yield f"{burn.actor}: {tally.failures} of {tally.all} tasks {what} in 3 days, and no rule alerts: {asks}"


def promise(burn: Burn) -> str:
    """Return an objective in words: 99.9 % succeed, 99 % within 2.5 s."""
    what = "succeed" if burn.latency is None else f"within {burn.latency:g} s"
    return f"{burn.target * 100:.10g} % {what}"


def times(rate: float) -> str:
    """Return a burn rate for people."""
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


# -- report -----------------------------------------------------------------------------------------------------------


class Format(StrEnum):
    """How a report is printed."""

    table = "table"
    json = "json"
    markdown = "markdown"


@app.command()
def report(
    *,
    form: Annotated[Format, typer.Option("--format", help="table, json or markdown.")] = Format.table,
    days: Annotated[int, typer.Option(min=1, max=30, help="Length of the period that ends now.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Report the error budgets of a period: what was promised, what came to pass, what is left; the worst actors first.

    Example: rl slo report --format markdown
    """
    settings = get_settings()
    with opened_store(settings) as store:
        burns = burn_rates(store, settings, {PERIOD: days * _DAY})
        until = Survey(store).now()
    everything = together(burns, settings.slo_target)
    burns.sort(key=lambda burn: (burn.budget_left, -burn.tally(PERIOD).all, burn.actor))
    if as_json or form is Format.json:
        print_json(_report(burns, everything, until, days))
        return
    period = f"{_day(until - days * _DAY)} to {_day(until)} ({days} days)"
    headers = ("actor", "objective", "attained", "failures", "tasks", "budget left")
    rows = [(burn.actor, promise(burn), *_attained(burn)) for burn in burns]
    rows.append((_ALL, "", *_attained(everything)))
    if form is Format.markdown:
        _print_markdown(period, headers, rows, worst(burns))
        return
    print_text(f"Error budgets, {period}")
    print_table(headers, rows)
    print_text(worst(burns))


def _report(burns: list[Burn], everything: Burn, until: float, days: int) -> dict[str, Any]:
    return {
        "from": iso(until - days * _DAY),
        "to": iso(until),
        "days": days,
        "objectives": [
            {
                "actor": burn.actor,
                "objective": burn.kind,
                "target": burn.target,
                "latency": burn.latency,
                **_outcome(burn),
            }
            for burn in burns
        ],
        **_outcome(everything),
        "exhausted": [burn.actor for burn in burns if burn.budget_left <= 0],
    }


def _outcome(burn: Burn) -> dict[str, Any]:
    tally: Tally = burn.tally(PERIOD)
    return {
        "attained": round(tally.rate, 9),
        "failures": tally.failures,
        "tasks": tally.all,
        "budget_left": round(burn.budget_left, 6),
    }


def _attained(burn: Burn) -> tuple[str, int, int, str]:
    tally = burn.tally(PERIOD)
    attained = f"{tally.rate * 100:.6g} %" if tally.all else "-"
    return attained, tally.failures, tally.all, percent(burn.budget_left)


def worst(burns: list[Burn]) -> str:
    """Return a sentence on who has spent most of its budget; they come in that order."""
    spent = [burn for burn in burns if burn.budget_left < 1]
    if not spent:
        return "Nobody has spent anything of its budget."
    shares = (f"{burn.actor} ({burn.kind}) {percent(1 - burn.budget_left)}" for burn in spent[:5])
    return f"Spent most of the budget: {', '.join(shares)}."


def _day(at: float) -> str:
    return (iso(at) or "")[:10]


def _print_markdown(period: str, headers: Iterable[str], rows: Iterable[Iterable[Any]], closing: str) -> None:
    names = list(headers)
    lines = [f"# Error budgets, {period}", "", _row(names), _row("---" for _ in names), *map(_row, rows)]
    for line in (*lines, "", _escaped(closing)):
        typer.echo(line)


def _row(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(_escaped(str(cell)) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Names may be anything: leave nothing in them that Markdown would take for its own."""
    return "".join(f"\\{char}" if char in "\\|`*[]<>_" else char for char in printable(text))

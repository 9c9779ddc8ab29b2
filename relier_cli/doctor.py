"""`rl doctor`: is everything set up so that no task is lost, and if not, what is to be done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import NoReturn

import typer

from relier.checkpoint_checks import checkpoint_check
from relier.errors import RelierConfigError, RelierError
from relier.fleet_checks import fleet_checks
from relier.preflight import Finding, inspect_redis
from relier.settings import get_settings, unknown_variables
from relier.store import get_store
from relier_cli.application import application
from relier_cli.output import AsJson, coloured, print_json, print_text


def doctor(as_json: AsJson = False) -> None:
    """Look at settings, Redis, workers, resurrector and queues. Exits 1 when something is wrong.

    Each finding that is not well comes with what to do about it. Actors are those of RELIER_ACTORS.

    Example: rl doctor --json
    """
    report(examine(), as_json)


def examine() -> list[Finding]:
    """Return what was found; never raises for what it finds."""
    try:
        settings = get_settings()
    except RelierConfigError as error:
        return [Finding("error", "settings", problem, "Correct the variable.") for problem in error.problems]
    findings = [Finding("warning", "settings", line, "Remove or correct it.") for line in unknown_variables()]
    try:
        known = application(settings)
        trouble = [Finding("error", "actors", line, "Correct RELIER_ACTORS, or the module.") for line in known.trouble]
        store = get_store(settings)
        checks = (*fleet_checks(store, known.broker, known.queues), checkpoint_check(store))
        findings += inspect_redis(store.client, settings, checks)
        store.close()
        return findings + trouble
    except RelierError as error:
        return [*findings, Finding("error", "server", str(error))]


def report(findings: Sequence[Finding], as_json: bool) -> NoReturn:
    """Print the findings, and exit with 1 when one of them is an error."""
    ok = not any(finding.level == "error" for finding in findings)
    if as_json:
        print_json({"ok": ok, "findings": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    raise typer.Exit(0 if ok else 1)


def _show(findings: Iterable[Finding]) -> None:
    """Print a line for each finding, and one for its fix."""
    colours = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "error": typer.colors.RED}
    counts = dict.fromkeys(colours, 0)
    for finding in findings:
        counts[finding.level] += 1
        typer.echo(f"{coloured(f'{finding.level:7}', colours[finding.level])}  ", nl=False)
        print_text(f"{finding.name}: {' '.join(finding.message.split())}")
        if finding.fix and finding.level != "ok":
            print_text(f"         fix: {finding.fix}")
    typer.echo(", ".join(f"{number} {level}" for level, number in counts.items()))

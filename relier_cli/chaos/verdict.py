"""How an experiment ends: what happened, step by step, and whether the promise held."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn

import typer

from relier_cli.output import coloured, print_json, print_text


class Steps:
    """What happened, and when: seconds after the experiment's zero.

    Parameters:
      shown: whether each is printed as it happens.
      as_json: then it goes to standard error.
    """

    def __init__(self, shown: bool, as_json: bool) -> None:
        self._shown = shown
        self._as_json = as_json
        self._zero = time.monotonic()
        self.noted: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Count from now on."""
        self._zero = time.monotonic()

    @property
    def now(self) -> float:
        return round(time.monotonic() - self._zero, 3)

    def note(self, what: str) -> None:
        at = self.now
        self.noted.append({"at": at, "what": what})
        if self._shown:
            typer.echo(f"{at:+9.3f} s  {what}", err=self._as_json)
            (sys.stderr if self._as_json else sys.stdout).flush()


@dataclass
class Verdict:
    """What an experiment showed.

    `findings`: what was not as promised; none: the promise held.
    """

    experiment: str
    held: str
    steps: Steps
    findings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "held": not self.findings,
            "verdict": self.text(),
            "findings": self.findings,
            "seconds": self.steps.now,
            "steps": self.steps.noted,
            **self.details,
        }

    def text(self) -> str:
        if not self.findings:
            return f"The promise held. {self.held}".rstrip()
        return f"The promise did not hold: {' '.join(self.findings)}"

    def tell(self, as_json: bool) -> NoReturn:
        """Print it, and end with 0 when the promise held, else 1."""
        if as_json:
            print_json(self.data())
        else:
            print_text(self.held if not self.findings else "")
            for finding in self.findings:
                print_text(f"- {finding}")
            word = coloured("held", "green") if not self.findings else coloured("did not hold", "red")
            typer.echo(f"{self.experiment}: the promise {word}.")
        raise typer.Exit(1 if self.findings else 0)

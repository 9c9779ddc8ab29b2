"""The account of what a test run stood on, and of what it could not run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self

import pytest

from tests import sources

REQUIRE_VARIABLE = "RELIER_TEST_REQUIRE"


@dataclass
class Account:
    """One process's account; the main process absorbs those of its workers (pytest-xdist).

    A kind that is required (`RELIER_TEST_REQUIRE`) and missing fails the run.
    """

    required: list[str]
    #: Kinds that cannot be had, and why.
    missing: dict[str, str]
    #: Kinds that tests ran on, and what they were.
    used: dict[str, str] = field(default_factory=dict)
    #: The tests that were skipped for want of each kind.
    skipped: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def open(cls) -> Self:
        required = [name.strip() for name in os.environ.get(REQUIRE_VARIABLE, "").split(",") if name.strip()]
        return cls(required, {kind: sources.MISSING[kind] for kind in sources.KINDS if not sources.sources(kind)})

    def skip(self, test: str, error: sources.Unavailable) -> NoReturn:
        """Skip a test for want of what it stands on."""
        self.missing[error.kind] = error.reason
        self.skipped.setdefault(error.kind, []).append(test)
        pytest.skip(f"NOT RUN, {error}")

    def told(self) -> dict[str, Any]:
        """Return what the main process must know."""
        return {"missing": self.missing, "used": self.used, "skipped": self.skipped}

    def absorb(self, told: dict[str, Any]) -> None:
        """Add what a worker told."""
        self.missing.update(told["missing"])
        self.used.update(told["used"])
        for kind, tests in told["skipped"].items():
            self.skipped.setdefault(kind, []).extend(tests)

    def failures(self) -> list[str]:
        """Return what is required and cannot be had."""
        unknown = [f"{name}: no such backend" for name in self.required if name not in sources.KINDS]
        return unknown + [f"{name}: {self.missing[name]}" for name in self.required if name in self.missing]

    def report(self, reporter: pytest.TerminalReporter) -> None:
        for kind, description in self.used.items():
            reporter.write_line(f"{kind} tests ran on {description}")
        if not self.missing and not self.failures():
            return
        reporter.section("NOT RUN", sep="!", red=True, bold=True)
        for kind, reason in self.missing.items():
            reporter.write_line(f"{kind}: {reason} ({len(set(self.skipped.get(kind, ())))} skipped)", red=True)
        for failure in self.failures():
            reporter.write_line(f"FAILED: {REQUIRE_VARIABLE} asks for {failure}", red=True, bold=True)

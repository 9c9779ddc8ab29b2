"""The fixtures of the conformance suite, for what is particular to brokers that are not Relier's."""

from __future__ import annotations

from tests.conformance.conftest import fleet, fleets, ground, topology

__all__ = ["fleet", "fleets", "ground", "topology"]

"""Fixtures for failure injection: fleets on each topology."""

from tests.conformance.conftest import fleet, fleets, ground, topology

__all__ = ["fleet", "fleets", "ground", "topology"]

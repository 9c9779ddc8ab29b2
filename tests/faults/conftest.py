"""Fixtures for failure injection."""

from tests.integration.conftest import fleets

__all__ = ["fleets"]

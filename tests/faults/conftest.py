"""Fixtures for failure injection."""

from __future__ import annotations

import pytest

from tests.faults import clock


@pytest.fixture(scope="session")
def libfaketime() -> str:
    """Skip a test that needs a fake clock where there is none."""
    if not clock.library():
        pytest.skip("NOT RUN: libfaketime is not installed")
    return clock.library()

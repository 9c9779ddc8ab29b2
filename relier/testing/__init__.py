"""Runs an application's actors in its tests: in this process, with every protection, on a clock that the test moves.

    with Testing() as tasks:
        receipt = add.push(1, 2)
        tasks.run()
        assert receipt.result() == 3

Claims, fences, keys, retries, dead letters and results are the real ones, in a store of the test's own.
"""

from __future__ import annotations

from relier.testing.errors import NeverEndingError, TestingError, WorkerCrash
from relier.testing.helper import Testing
from relier.testing.tasks import Task

__all__ = ["NeverEndingError", "Task", "Testing", "TestingError", "WorkerCrash"]

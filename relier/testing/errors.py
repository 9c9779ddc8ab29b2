"""What `relier.testing` raises."""

from __future__ import annotations

from relier.errors import RelierError


class TestingError(RelierError):
    """What a test asked for cannot be done."""

    __test__ = False  # No test class, whatever its name looks like.


class NeverEndingError(TestingError):
    """Tasks go on and on: they enqueue each other, or retry, without end."""


class WorkerCrash(BaseException):
    """Ends the code of a task whose worker `Testing.crash` killed. No `except Exception` stops it, as with SIGKILL."""

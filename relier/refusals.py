"""What is said to a task that is not admitted."""

from __future__ import annotations

from relier.backlog import Deep
from relier.errors import AdmissionRejectedError
from relier.store.admissions import Limit

#: The shortest time (s) after which a refused task is told to come again.
SOONEST = 0.001


def rejected(limit: Limit, wait: float) -> AdmissionRejectedError:
    """A limit is used up; permits are free again in `wait` seconds."""
    wait = max(SOONEST, wait)
    text = f"{limit.most} tasks in {limit.window:g} s are the limit{_of(limit)}; try again in {wait:.3f} s."
    return AdmissionRejectedError(f"Admission rejected: {text}", wait)


def too_many(limit: Limit, count: int) -> AdmissionRejectedError:
    """A batch is larger than a limit."""
    text = (
        f"{count} tasks at once can never be admitted, {limit.most} in {limit.window:g} s are the limit{_of(limit)};"
        " push them in smaller batches."
    )
    return AdmissionRejectedError(f"Admission rejected: {text}", limit.window)


def too_deep(deep: Deep) -> AdmissionRejectedError:
    """Too many tasks wait in a queue."""
    text = (
        f"too many tasks wait in queue {deep.queue!r}: {deep.depth}, RELIER_ADMISSION_MAX_DEPTH is {deep.most};"
        f" try again in {deep.wait:.3f} s."
    )
    return AdmissionRejectedError(f"Admission rejected: {text}", deep.wait)


def _of(limit: Limit) -> str:
    kind, _, rest = limit.scope.partition(":")
    if kind == "global":
        return ""
    if kind == "actor":
        return f" of actor {rest!r}"
    return f" of key {rest.partition(':')[2]!r} of actor {rest.partition(':')[0]!r}"

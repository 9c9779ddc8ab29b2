"""Relier's middlewares: thin hooks over the life cycle."""

from __future__ import annotations

from relier.middleware.admission import Admission
from relier.middleware.event_loop import AsyncIO
from relier.middleware.followups import Callbacks, GroupCallbacks, Pipelines
from relier.middleware.heartbeat import Heartbeat
from relier.middleware.idempotency import Idempotency
from relier.middleware.job_keys import JobKeys
from relier.middleware.lifecycle import Lifecycle
from relier.middleware.recovery_pool import RecoveryPool
from relier.middleware.time_limit import TimeLimit

__all__ = [
    "Admission",
    "AsyncIO",
    "Callbacks",
    "GroupCallbacks",
    "Heartbeat",
    "Idempotency",
    "JobKeys",
    "Lifecycle",
    "Pipelines",
    "RecoveryPool",
    "TimeLimit",
]

"""The store: Redis and Lua, the one place where a task's fate is decided."""

from __future__ import annotations

from relier.store.keys import SHARDS, shard_of
from relier.store.records import Record
from relier.store.store import Store, get_store
from relier.store.tasks import Commit
from relier.store.verdicts import (
    HOOKS_ONLY,
    RUNS,
    Claim,
    Custody,
    Due,
    Failure,
    JobTerms,
    KeyTerms,
    Lot,
    Parking,
    Sending,
    Settled,
    Suspicion,
    Verdict,
)

__all__ = [
    "HOOKS_ONLY",
    "RUNS",
    "SHARDS",
    "Claim",
    "Commit",
    "Custody",
    "Due",
    "Failure",
    "JobTerms",
    "KeyTerms",
    "Lot",
    "Parking",
    "Record",
    "Sending",
    "Settled",
    "Store",
    "Suspicion",
    "Verdict",
    "get_store",
    "shard_of",
]

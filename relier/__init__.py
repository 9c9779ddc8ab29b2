"""Relier for Dramatiq: every acknowledged task reaches exactly one recorded end.

Importing this package has no side effects: names are loaded on first use, no client is created.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relier.actor import RelierActor, rl_actor
    from relier.context import TaskContext, task_context
    from relier.errors import (
        AdmissionRejectedError,
        CheckpointTooLargeError,
        HardTimeoutError,
        IdempotencyInFlightError,
        JobKeyRefusedError,
        PayloadIntegrityError,
        PayloadTooLargeError,
        RelierConfigError,
        RelierError,
        RelierStartupError,
        ResultMissing,
        ResultTimeout,
        RunUnknownError,
        SchemaMigrationError,
        StaleFenceError,
        StoreError,
        StoreUnavailableError,
        TaskFailedError,
        UnsignableError,
    )
    from relier.installation import install
    from relier.locks import IdempotencyLock, idempotency_lock
    from relier.receipts import TaskReceipt
    from relier.schema import SchemaRegistry
    from relier.settings import Settings, get_settings

__version__ = "0.1.0"

__all__ = [
    "AdmissionRejectedError",
    "CheckpointTooLargeError",
    "HardTimeoutError",
    "IdempotencyInFlightError",
    "IdempotencyLock",
    "JobKeyRefusedError",
    "PayloadIntegrityError",
    "PayloadTooLargeError",
    "RelierActor",
    "RelierConfigError",
    "RelierError",
    "RelierStartupError",
    "ResultMissing",
    "ResultTimeout",
    "RunUnknownError",
    "SchemaMigrationError",
    "SchemaRegistry",
    "Settings",
    "StaleFenceError",
    "StoreError",
    "StoreUnavailableError",
    "TaskCancelled",
    "TaskContext",
    "TaskFailedError",
    "TaskReceipt",
    "UnsignableError",
    "__version__",
    "get_settings",
    "idempotency_lock",
    "install",
    "rl_actor",
    "task_context",
]

_HOMES = {
    "RelierActor": "actor",
    "rl_actor": "actor",
    "TaskCancelled": "interrupts",
    "TaskContext": "context",
    "task_context": "context",
    "IdempotencyLock": "locks",
    "idempotency_lock": "locks",
    "install": "installation",
    "TaskReceipt": "receipts",
    "SchemaRegistry": "schema",
    "Settings": "settings",
    "get_settings": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

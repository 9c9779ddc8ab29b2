"""The likely fix of a dead letter: what to do about it, by its reason and its error's text."""

from __future__ import annotations

_TIMED_OUT = (
    "It ran too long: profile the actor, or raise its limit (hard_timeout, Dramatiq's time_limit); then release it."
)

_NO_MODULE = "Its workers lack a module or a name in one: deploy what is missing to all of them, and release it."

#: The likely fix for each reason.
_BY_REASON = {
    "PayloadIntegrityError": (
        "The bytes are not what the producer sent: enqueue the task again from its source, and look at the storage and"
        " at who else writes there. Never retry it blindly."
    ),
    "SchemaMigrationError": "Fix the migration, deploy it, and release the task.",
    "HardTimeoutError": _TIMED_OUT,
    "TimeoutError": _TIMED_OUT,
    "TimeLimitExceeded": _TIMED_OUT,
    "max_resurrections_exceeded": (
        "Its workers died again and again while it ran: look at the arguments (memory, native code), fix the cause,"
        " and release it."
    ),
    "ModuleNotFoundError": _NO_MODULE,
    "ImportError": _NO_MODULE,
    "PayloadTooLargeError": (
        "It enqueued a message that is too large: let it send where the data is, or raise RELIER_MAX_PAYLOAD_BYTES;"
        " then release it."
    ),
    "CheckpointTooLargeError": (
        "Its checkpoint is too large: keep less of it, or set RELIER_CHECKPOINT_BACKEND=filesystem; then release it."
    ),
    "UnsignableError": (
        "It follows from another task and got what cannot be signed: correct what that one returns, and enqueue this"
        " one again from its source."
    ),
    "ActorNotFound": "No worker knows its actor: deploy one that does, and release it.",
    "ResultMissing": (
        "Another task with its idempotency key did the work, and the result was not kept, which this one's pipeline or"
        " callback needs: raise RELIER_MAX_RESULT_BYTES, or return a name instead of the data; release it later."
    ),
}
_OTHER = "Look at the traceback, fix the cause, deploy, and release it: rl dlq release ID."

#: Fixes of a `PayloadIntegrityError` whose text begins so; see `relier.integrity`.
_BY_TEXT = {
    "It is not signed": (
        "Its producer has no keys, or is plain Dramatiq: give it RELIER_SIGNING_KEYS, and enqueue the task again from"
        " its source. If it is none of your producers, somebody else wrote it. Never retry it blindly."
    ),
    "It was signed with the key": (
        "A process was left out of a rotation, or a key was removed too early: if the key is yours, add it to"
        " RELIER_SIGNING_KEYS of every worker and resurrector, and release the task; else enqueue it again from its"
        " source. Never retry it blindly."
    ),
    "Its signature does not fit": (
        "Two processes have different secrets under one name: compare RELIER_SIGNING_KEYS. Or somebody without the key"
        " made or changed it: look at the storage and at who else writes there. Enqueue the task again from its source;"
        " never retry it blindly."
    ),
}


def likely_fix(reason: str, text: str) -> str:
    """Return what to do about a dead letter of this reason, whose error has this text."""
    if reason == "PayloadIntegrityError":
        for beginning, fix in _BY_TEXT.items():
            if text.startswith(beginning):
                return fix
    return _BY_REASON.get(reason, _OTHER)

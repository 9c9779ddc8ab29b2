"""Every error that Relier raises on purpose: one shallow tree under `RelierError`."""

from __future__ import annotations

from collections.abc import Iterable

from dramatiq.middleware import MiddlewareError


class RelierError(Exception):
    """Base of every error that Relier raises on purpose."""


class AdmissionRejectedError(RelierError, MiddlewareError):
    """Raised by an enqueue that admission control refused; nothing was published.

    Also a Dramatiq `MiddlewareError`: Dramatiq swallows every other exception of a before-hook.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        #: Seconds after which another try has a chance.
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[AdmissionRejectedError], tuple[str, float]]:
        return type(self), (str(self), self.retry_after)


class PayloadIntegrityError(RelierError):
    """The message's signature is wrong or its bytes cannot be decoded; it was not executed."""


class JobKeyRefusedError(RelierError):
    """A dead letter has this job key, and the actor says `on_dead_job="refuse"`; nothing was enqueued.

    `dead_letter` is its id, `reason` the recorded one.
    """

    def __init__(self, message: str, dead_letter: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.dead_letter = dead_letter
        self.reason = reason

    def __reduce__(self) -> tuple[type[JobKeyRefusedError], tuple[str, str, str]]:
        return type(self), (str(self), self.dead_letter, self.reason)


class UnsignableError(RelierError, ValueError):
    """The message has no canonical form, so it cannot be signed; the text names the place. Nothing was enqueued."""


class PayloadTooLargeError(RelierError, ValueError):
    """The message has more than `RELIER_MAX_PAYLOAD_BYTES`. Nothing was enqueued."""

    def __init__(self, actor: str, size: int, limit: int) -> None:
        super().__init__(actor, size, limit)
        self.actor = actor
        #: Bytes of the encoded message, and how many it may have.
        self.size, self.limit = size, limit

    def __str__(self) -> str:
        return (
            f"A message for actor {self.actor!r} has {self.size} bytes; at most {self.limit} are accepted. Put the data"
            " into a file, a database or an object store, and send where it is; or raise RELIER_MAX_PAYLOAD_BYTES."
        )


class SchemaMigrationError(RelierError):
    """The payload could not be migrated to the version that the actor expects."""


class IdempotencyInFlightError(RelierError):
    """Another run holds the idempotency key."""


class CheckpointTooLargeError(RelierError, RuntimeError):
    """The checkpoint exceeds `RELIER_CHECKPOINT_MAX_INLINE_BYTES`."""


class HardTimeoutError(RelierError):
    """The run was cancelled because it exceeded the actor's `hard_timeout`."""


class StaleFenceError(RelierError):
    """The caller presented a lower fence than the store knows: the task has moved on without it."""


class ResultTimeout(RelierError):
    """No result appeared within the given time."""


class ResultMissing(RelierError):
    """There is no result to wait for: none is kept, or no longer, or it was too large or could not be encoded."""


class TaskFailedError(RelierError):
    """The awaited task ended without success.

    `reason` is the recorded one (the DLQ's, or `discarded: …`), `message` the text of the failure.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else self.reason


class StoreError(RelierError):
    """The store answered with something that Relier cannot accept."""


class RunUnknownError(StoreError):
    """The store lost data, and with it the caller's run: its copy goes back to the queue."""


class StoreUnavailableError(StoreError):
    """The store could not be reached; the call may or may not have been applied."""


class RelierStartupError(RelierError, RuntimeError):
    """The process must not start; the text is one line with the way out."""


class RelierConfigError(RelierStartupError):
    """One or more settings are wrong; one line per problem, secrets masked."""

    def __init__(self, problems: Iterable[str] | str) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[RelierConfigError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)

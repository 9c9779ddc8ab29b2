from __future__ import annotations

import pickle

import pytest
from dramatiq.middleware import MiddlewareError

import relier
from relier import errors


def every_error() -> list[type[errors.RelierError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RelierError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_is_public(kind: type[errors.RelierError]) -> None:
    assert getattr(relier, kind.__name__) is kind
    assert kind.__name__ in dir(relier)


def test_a_rejection_passes_through_dramatiq_and_carries_its_retry_after() -> None:
    error = errors.AdmissionRejectedError("Too many tasks.", 2.5)
    assert isinstance(error, MiddlewareError)
    assert (str(error), error.retry_after) == ("Too many tasks.", 2.5)


@pytest.mark.parametrize(
    "error",
    [
        errors.AdmissionRejectedError("Too many tasks.", 2.5),
        errors.TaskFailedError("HardTimeoutError", "too long"),
        errors.RelierConfigError(["one", "two"]),
        errors.StaleFenceError("too old"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling(error: errors.RelierError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_startup_and_checkpoint_errors_are_runtime_errors() -> None:
    assert issubclass(errors.RelierStartupError, RuntimeError)
    assert issubclass(errors.CheckpointTooLargeError, RuntimeError)


def test_a_failed_task_tells_reason_and_message() -> None:
    assert str(errors.TaskFailedError("ValueError", "no such order")) == "ValueError: no such order"
    assert str(errors.TaskFailedError("purged")) == "purged"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'relier' has no attribute 'nonsense'"):
        relier.nonsense  # noqa: B018

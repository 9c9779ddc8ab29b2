"""Dramatiq's `Results` on Relier's own brokers: it reads what the commit kept, and writes nothing."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from dramatiq.results import ResultBackend, ResultFailure, ResultMissing, Results, ResultTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT

from relier import errors
from relier.envelope import is_stamped, stamp_of
from relier.results import is_idempotent
from relier.store.known import Known
from relier.waiting import Wait, asked

if TYPE_CHECKING:
    from relier.brokers.own import OwnBroker


class StoreBackend(ResultBackend):
    """Gives `message.get_result()` what the commit kept. Its hooks do nothing, so that there is nothing to replay."""

    #: Tells `relier.hooks` that results are kept without a hook.
    kept_by_commit = True

    def __init__(self, broker: OwnBroker) -> None:
        super().__init__(namespace=broker.settings.namespace)
        self._broker = broker

    def get_result(self, message: Any, *, block: bool = False, timeout: int | None = None) -> Any:
        """Return a result; with `block` wait up to `timeout` milliseconds (default: ten seconds).

        Raises Dramatiq's `ResultFailure` for a task that is a dead letter or was discarded, `ResultTimeout`, and
        `ResultMissing` when there is none yet or none is kept. A task that was skipped has `None`, as in Dramatiq.
        """
        try:
            return self._wait(message, (DEFAULT_TIMEOUT if timeout is None else timeout) / 1000 if block else 0)
        except errors.ResultMissing as missing:
            raise ResultMissing(str(missing)) from None  # type: ignore[no-untyped-call]
        except errors.ResultTimeout:
            kind = ResultTimeout if block else ResultMissing
            raise kind(message) from None
        except errors.TaskFailedError as failure:
            if failure.reason == "discarded: skipped":
                return None
            text = f"actor raised {failure}" if failure.message else str(failure)
            raise ResultFailure(text, failure.reason, failure.message) from None  # type: ignore[no-untyped-call]

    def _wait(self, message: Any, timeout: float) -> Any:
        stamp, store = stamp_of(message), self._broker.store
        certain = is_stamped(message) or not is_idempotent(self._broker, message)

        def look(shard: int | None) -> Known:
            return asked(lambda: store.known(stamp.task_id, shard, result=True))

        wait = Wait(stamp.task_id, look, timeout, stamp.shard if certain else None)
        for pause in wait.pauses():
            time.sleep(pause)
        return wait.result

    def store_result(self, message: Any, result: Any, ttl: int) -> None:
        """Do nothing: the commit kept it."""

    def store_exception(self, message: Any, exception: Exception, ttl: int) -> None:
        """Do nothing: the dead letter has it."""


def quiet_results(broker: OwnBroker) -> Results:
    """Return Results for `store_results=True`, kept for `RELIER_RESULT_TTL`.

    An actor that returns a value nobody stores is ordinary; Dramatiq warns of each one.
    """
    ttl = int(broker.settings.result_ttl * 1000)
    results = Results(backend=StoreBackend(broker), result_ttl=ttl)  # type: ignore[no-untyped-call]
    results.logger = logging.getLogger(__name__)
    results.logger.setLevel(logging.ERROR)
    return results

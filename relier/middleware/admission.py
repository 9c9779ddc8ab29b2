"""Puts admission on a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dramatiq import Broker
from dramatiq.middleware import Middleware

from relier.admission import Admission as Gate
from relier.brokers.adapters import adapter_of
from relier.store.client import connect

if TYPE_CHECKING:
    from relier.installation import Installation


class Admission(Middleware):
    """Limits how many tasks all producers together may enqueue in a window of time.

    A task is counted where it is enqueued first-hand (`relier.sending.prepared`), not in a hook of this middleware:
    brokers call `before_enqueue` again for retries, delays that are over, and each try to publish.

    Settings: `RELIER_ADMISSION_LIMIT`, `RELIER_ADMISSION_WINDOW`, `RELIER_ADMISSION_MAX_DEPTH`.

    Parameters:
      admission_limit(int): How many tasks of this actor are admitted in its window. By default it has no own limit.
      admission_window(float): Its window in seconds. Defaults to `RELIER_ADMISSION_WINDOW`.
      admission_key(str or callable): The limit holds for each key by itself. A template of the arguments' names, or a
        function of the arguments.
    """

    def __init__(self, broker: Broker, installation: Installation) -> None:
        settings = installation.settings
        broker.__dict__["relier_admission"] = Gate(
            broker,
            settings,
            client=lambda: connect(settings),
            admissions=lambda: installation.store.admissions,
            depth=lambda queue: adapter_of(broker).depth(queue),
            shared=lambda: adapter_of(broker).shares_redis(installation.store.client),
        )

    @property
    def actor_options(self) -> set[str]:
        return {"admission_limit", "admission_window", "admission_key"}

"""Brokers: the only modules that know what carries the messages."""

from __future__ import annotations

from dramatiq import Broker

from relier.errors import RelierConfigError
from relier.settings import Settings, get_settings
from relier.urls import RABBITMQ_SCHEMES


def default_broker(settings: Settings | None = None) -> Broker:
    """Build Relier's own broker from the settings. It connects on first use.

    Raises `RelierConfigError` for a broker that this version does not have.
    """
    settings = settings or get_settings()
    if settings.broker_url and settings.broker_url.startswith(RABBITMQ_SCHEMES):
        raise RelierConfigError(
            "RELIER_BROKER_URL: this version has no RabbitMQ broker of its own yet."
            " Use Redis, or call relier.install() on a dramatiq RabbitmqBroker."
        )
    from relier.brokers.redis import RelierRedisBroker

    return RelierRedisBroker(settings=settings)

"""Brokers: the only modules that know what carries the messages."""

from __future__ import annotations

from dramatiq import Broker

from relier.errors import RelierConfigError
from relier.settings import Settings, get_settings
from relier.urls import RABBITMQ_SCHEMES


def default_broker(settings: Settings | None = None) -> Broker:
    """Build Relier's own broker from the settings. It connects on first use.

    Raises `RelierConfigError` when the URL cannot be used, or pika is missing for RabbitMQ.
    """
    settings = settings or get_settings()
    if settings.broker_url and settings.broker_url.startswith(RABBITMQ_SCHEMES):
        return _rabbitmq_broker(settings)
    from relier.brokers.redis import RelierRedisBroker

    return RelierRedisBroker(settings=settings)


def _rabbitmq_broker(settings: Settings) -> Broker:
    try:
        import pika  # noqa: F401
    except ImportError:
        raise RelierConfigError(
            "RELIER_BROKER_URL names RabbitMQ, which needs pika: pip install '.[rabbitmq]' in a checkout of Relier."
        ) from None
    from relier.brokers.rabbitmq import RelierRabbitmqBroker

    return RelierRabbitmqBroker(settings=settings)

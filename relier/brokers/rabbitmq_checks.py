"""Look at RabbitMQ before work begins: what a start or `rl doctor` has to say about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions

from relier.brokers.rabbitmq_connection import LOST, describe, parameters_of
from relier.errors import RelierConfigError
from relier.preflight import Finding
from relier.urls import safe_url

if TYPE_CHECKING:
    from relier.brokers.rabbitmq import RelierRabbitmqBroker

#: What pika raises when RabbitMQ answers, but not to this user or not for this virtual host.
_REFUSED: tuple[type[Exception], ...] = (
    pika.exceptions.ProbableAuthenticationError,
    pika.exceptions.ProbableAccessDeniedError,
    pika.exceptions.AuthenticationError,
    pika.exceptions.ConnectionClosedByBroker,
)


def look_at(broker: RelierRabbitmqBroker) -> Iterator[Finding]:
    """Yield a finding for the server, and one for each queue that cannot be used. Makes no queue."""
    place = safe_url(broker.url)
    try:
        connection = pika.BlockingConnection(parameters_of(broker.url, broker.settings, "preflight"))
    except _REFUSED as error:
        message = f"RabbitMQ ({place}) refuses this user or virtual host. Refusing to start."
        fix = f"{describe(error)}. Correct RELIER_BROKER_URL, or set the user's permissions (docs/rabbitmq.md)."
        yield Finding("error", "broker", message, fix)
        return
    except LOST as error:
        message = f"Relier cannot reach RabbitMQ ({place}). Refusing to start."
        yield Finding("error", "broker", message, f"{describe(error)}. Start RabbitMQ, or correct RELIER_BROKER_URL.")
        return
    version = _version(connection)
    yield Finding("ok", "broker", f"RabbitMQ {version} answers at {place}.")
    for queue in sorted(broker.queues):
        yield from _queue(broker, connection, queue)
    connection.close()


def _version(connection: Any) -> str:
    return str(connection._impl.server_properties.get("version", "?"))


def _queue(broker: RelierRabbitmqBroker, connection: Any, queue: str) -> Iterator[Finding]:
    try:
        if broker.exists(connection.channel(), queue):
            broker.declare_on(connection.channel(), queue)
    except pika.exceptions.ChannelClosedByBroker as error:
        refusal: RelierConfigError = broker.refusal(queue, error)
        yield Finding("error", "broker queues", str(refusal), "Set RELIER_RABBITMQ_QUEUE_TYPE to the queues' type.")

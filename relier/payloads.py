"""The size of messages: what is too large for Redis, RabbitMQ and workers' memory is refused where it is enqueued."""

from __future__ import annotations

import logging
from typing import Any

from dramatiq import Message

from relier.errors import PayloadTooLargeError
from relier.sending import is_first_hand

logger = logging.getLogger(__name__)

#: An encoded message has fewer bytes than this for each byte under its seal: JSON may write a character as an escape.
WIDEST = 4


def check_size(message: Message[Any], size: int, limit: int) -> None:
    """Raise `PayloadTooLargeError` for a message of more than `limit` bytes that somebody enqueues first-hand.

    What follows from a task that has ended is sent all the same: nobody would hear of it. Nor are further copies of a
    task refused, which was accepted once.
    """
    if size <= limit:
        return
    if is_first_hand(message):
        raise PayloadTooLargeError(message.actor_name, size, limit)
    logger.warning(
        "A message that follows from another is larger than RELIER_MAX_PAYLOAD_BYTES; it is sent all the same.",
        extra={"task": message.message_id, "actor": message.actor_name, "bytes": size},
    )


def check_sealed(message: Message[Any], sealed: int, limit: int) -> None:
    """Check a message that a broker of somebody else's is about to encode; `sealed`: how many bytes its seal covers.

    It is encoded here only when those cannot tell: 0, or so many that it may be too large.
    """
    if (sealed == 0 or sealed * WIDEST > limit) and is_first_hand(message):
        check_size(message, len(message.encode()), limit)

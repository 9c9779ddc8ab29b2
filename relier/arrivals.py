"""What arrived, and whether this process may vouch for it when it is enqueued again."""

from __future__ import annotations

import logging
from threading import local
from typing import Any

from relier.runs import current
from relier.seldom import Seldom

logger = logging.getLogger(__name__)

#: How often (s) one actor is warned of.
WARNING_INTERVAL = 60.0

_thread = local()
_seldom = Seldom(WARNING_INTERVAL)


def mark(message: Any, signed: bool) -> None:
    """Note what the examination of a consumed message found; see `Integrity.examine`."""
    message.__dict__["relier_signed"] = signed
    if not signed:
        _warn(message.actor_name)


def arrived_signed(message: Any) -> bool:
    """Whether what follows from a consumed message may be sealed."""
    return bool(message.__dict__.get("relier_signed"))


def arrived_unsigned(message: Any) -> bool:
    """Whether a message was consumed that nobody has signed, and accepted all the same."""
    return message.__dict__.get("relier_signed") is False


def take_in_hand(message: Any) -> None:
    """Note which consumed message this thread deals with from now on."""
    _thread.in_hand = message


def may_vouch(message: Any) -> bool:
    """Whether a message that is enqueued first-hand may be sealed.

    Not if it is the one that this thread received, and that one was not signed: a middleware that puts its message off
    must not bless what nobody has vouched for.
    """
    return not goes_on(message) or arrived_signed(_received())


def goes_on(message: Any) -> bool:
    """Whether a message that is enqueued is the one that this thread received: put off, and not a new task."""
    received = _received()
    return received is not None and bool(received.message_id == message.message_id)


def _received() -> Any:
    run = current.get()
    return run.message if run is not None else getattr(_thread, "in_hand", None)


def _warn(actor: str) -> None:
    if _seldom.may_say(actor):
        logger.warning("An unsigned message was accepted.", extra={"actor": actor})

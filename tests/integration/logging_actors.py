"""Actors that log in every way user code may."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from typing import Any

import structlog
from dramatiq import Broker

from relier import rl_actor

plain = logging.getLogger("shop.orders")
library = logging.getLogger("somelib.http")
structured = structlog.get_logger("shop.structured")


class LoggingActors:
    """They stand beside the others, on the same broker."""

    def __init__(self, broker: Broker) -> None:
        self.says: Any = rl_actor(says, broker=broker)
        self.asays: Any = rl_actor(asays, broker=broker)
        self.complains: Any = rl_actor(complains, broker=broker, max_retries=1, min_backoff=1, max_backoff=2)


def says(secret: str) -> None:
    plain.info("plain")
    library.warning("library")
    structured.info("structured", order=17)
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(plain.info, "thread"))
    thread.start()
    thread.join()


async def asays(secret: str) -> None:
    plain.info("async before")
    await asyncio.gather(_aside(), asyncio.to_thread(plain.info, "to_thread"))
    plain.info("async after")


async def _aside() -> None:
    await asyncio.sleep(0.01)
    structured.info("beside")


def complains(secret: str) -> None:
    plain.info("complaint")
    raise ValueError(len(secret))

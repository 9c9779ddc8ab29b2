"""Whose line it is: for applications that write their logs their own way."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from dramatiq import Message
from dramatiq.broker import MessageProxy

from relier import rl_actor
from relier.log_context import TaskFields
from relier.log_payloads import guard_records
from relier.logging import configure_logging
from relier.settings import Settings
from relier.testing import Testing

embedded = pytest.mark.parametrize("server", ["embedded"], indirect=True)

log = logging.getLogger("shop.contexts")


@pytest.fixture
def tasks(store_url: str) -> Iterator[Testing]:
    with Testing(redis_url=store_url) as tasks:
        yield tasks


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    factory, root = logging.getLogRecordFactory(), logging.getLogger()
    handlers, levels = root.handlers, (root.level, logging.getLogger("relier").level)
    yield
    logging.setLogRecordFactory(factory)
    root.handlers = handlers
    root.setLevel(levels[0])
    logging.getLogger("relier").setLevel(levels[1])
    log.handlers.clear()
    structlog.reset_defaults()


@embedded
def test_an_application_that_configured_structlog_has_the_fields_by_its_rules(tasks: Testing) -> None:
    seen: list[dict[str, Any]] = []

    def keep(_: Any, __: str, event: Any) -> Any:
        seen.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])

    @rl_actor
    def work() -> None:
        structlog.get_logger().info("in")

    @rl_actor
    async def awork() -> None:
        structlog.get_logger().info("in")

    ids = [work.push().id, awork.push().id]
    tasks.finish()
    structlog.get_logger().info("out")

    assert [(line.get("task"), line.get("actor")) for line in seen] == [
        (ids[0], "work"),
        (ids[1], "awork"),
        (None, None),
    ]
    assert all(line["fence"] > 0 and line["attempt"] == 0 and line["worker"] for line in seen[:2])


@embedded
def test_a_handler_with_a_format_of_its_own_gets_them_by_a_filter(tasks: Testing) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(task)s|%(actor)s|%(attempt)s|%(message)s"))
    handler.addFilter(TaskFields())
    log.addHandler(handler)

    @rl_actor
    def work() -> None:
        log.warning("in")

    task = work.push().id
    tasks.finish()
    log.warning("out")

    assert stream.getvalue().splitlines() == [f"{task}|work|0|in", "|||out"]


@embedded
def test_a_line_that_another_thread_writes_keeps_its_task(tasks: Testing) -> None:
    """As with a `QueueHandler`: what is bound where the line is written is not what was where it was logged."""
    root, stream, late = logging.getLogger(), io.StringIO(), _Later()
    root.handlers = [logging.StreamHandler(stream)]
    configure_logging(Settings())
    log.addHandler(late)
    log.propagate = False

    @rl_actor
    def work() -> None:
        log.warning("in")

    task = work.push().id
    tasks.finish()
    log.propagate = True
    root.handlers[0].handle(late.records[0])

    assert json.loads(stream.getvalue())["task"] == task


class _Later(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_a_handler_that_user_code_adds_gets_no_argument() -> None:
    guard_records()
    guard_records()
    late = _Later()
    log.addHandler(late)
    log.setLevel(logging.DEBUG)
    message: Message[Any] = Message("mail", "send", ("secret",), {}, {}, message_id="m1")

    log.debug("Received args=%r kwargs=%r.", ("secret",), {})
    log.error("Failed to process message %s with unhandled exception.", MessageProxy(message))

    texts = [record.getMessage() for record in late.records]
    assert texts == [
        "Received its arguments.",
        "Failed to process message send[m1] with unhandled exception.",
    ]

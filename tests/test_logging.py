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

from relier.logging import configure_logging, get_logger
from relier.settings import Settings


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Give the stream of the root's only handler, and put everything back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("relier")
    before = (root.handlers, root.level, ours.level, logging.getLogRecordFactory())
    stream = io.StringIO()
    root.handlers = [logging.StreamHandler(stream)]
    yield stream
    root.handlers = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.setLogRecordFactory(before[3])
    structlog.reset_defaults()


def test_a_line_is_json_with_sentence_and_fields(output: io.StringIO) -> None:
    configure_logging(Settings())

    get_logger("relier.x").warning("Worker death detected; replaying orphaned task.", task_id="1", name="n")

    line = json.loads(output.getvalue())
    assert line.pop("timestamp")
    assert line == {
        "event": "Worker death detected; replaying orphaned task.",
        "level": "warning",
        "logger": "relier.x",
        "task_id": "1",
        "name": "n",
    }


def test_others_lines_get_the_same_form(output: io.StringIO) -> None:
    configure_logging(Settings(log_level="info"))
    logging.getLogger("dramatiq.Worker").info("Started %s", "x")
    assert json.loads(output.getvalue())["event"] == "Started x"


def test_the_level_is_the_settings(output: io.StringIO) -> None:
    configure_logging(Settings(log_level="error", log_format="console"))
    log = get_logger("relier.y")
    log.warning("hidden")
    log.error("shown", a=1)
    assert "hidden" not in output.getvalue()
    assert "shown" in output.getvalue()


def test_extra_of_our_own_loggers_becomes_fields(output: io.StringIO) -> None:
    configure_logging(Settings())
    logging.getLogger("relier.sweeper").info("Buried a worker.", extra={"worker": "w", "tasks": 3})
    line = json.loads(output.getvalue())
    assert (line["worker"], line["tasks"]) == ("w", 3)


def test_extra_of_others_may_hold_payloads_and_is_left_out(output: io.StringIO) -> None:
    configure_logging(Settings())
    logging.getLogger("dramatiq.Worker").warning("Failed.", extra={"input": "secret"})
    assert "secret" not in output.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variable(output: io.StringIO, form: str) -> None:
    configure_logging(Settings(log_format=form))
    secret = "hid" + "den"
    try:
        raise ValueError(len(secret))
    except ValueError:
        get_logger("relier.z").exception("Failed.")
    assert "ValueError: 6" in output.getvalue()
    assert "hidden" not in output.getvalue()


def test_without_configuration_the_fields_follow_the_sentence(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("relier.w").warning("Store is away.", seconds=2, args="100%s")
    assert caplog.messages == ["Store is away. seconds=2 args='100%s'"]


def skipped(**attributes: str) -> MessageProxy:
    message: Message[Any] = Message("mail", "send", ("secret",), {}, {}, message_id="m1")
    proxy = MessageProxy(message)
    vars(proxy).update(attributes)
    return proxy


def test_a_copy_that_the_store_skipped_is_no_warning_and_says_why(output: io.StringIO) -> None:
    configure_logging(Settings(log_level="info"))
    logging.getLogger("dramatiq.worker.WorkerThread").warning(
        "Message %s was skipped.", skipped(relier_skipped="settled")
    )
    line = json.loads(output.getvalue())
    assert (line["level"], line["event"]) == ("info", "Message send[m1] was skipped: settled.")


def test_it_is_left_out_where_only_warnings_are_wanted(output: io.StringIO) -> None:
    configure_logging(Settings(log_level="warning"))
    logging.getLogger("dramatiq.worker.WorkerThread").warning("Message %s was skipped.", skipped(relier_skipped="void"))
    assert output.getvalue() == ""


def test_a_message_that_somebody_else_skipped_keeps_its_warning(output: io.StringIO) -> None:
    configure_logging(Settings(log_level="warning"))
    logger = logging.getLogger("dramatiq.worker.WorkerThread")
    logger.warning("Message %s was skipped.", skipped())
    logger.warning("Failed: %s", skipped(relier_skipped="void"))
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [
        ("warning", "Message send[m1] was skipped."),
        ("warning", "Failed: send[m1]"),
    ]

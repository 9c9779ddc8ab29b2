"""Log stable sentences with structured fields, through the standard library's logging.

`get_logger` works in any application: without `configure_logging` the fields follow the sentence as
`key=value`. Never log a payload or a secret.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import structlog
from dramatiq import Message
from dramatiq.broker import MessageProxy
from structlog.stdlib import BoundLogger, ProcessorFormatter

if TYPE_CHECKING:
    from relier.settings import Settings

_EVENT = "relier_event"
_FIELDS = "relier_fields"

#: Loggers whose `extra` becomes fields; that of others may hold payloads.
_OURS = ("relier", "relier_cli")
_add_extra = structlog.stdlib.ExtraAdder()


def get_logger(name: str) -> BoundLogger:
    """Return a logger whose methods take a sentence and fields: `log.warning("Lost.", task_id=...)`."""
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=BoundLogger,
        processors=[structlog.stdlib.filter_by_level, _to_record],
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger


def _to_record(_: Any, __: str, fields: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    event = str(fields.pop("event", ""))
    passed = {name: fields.pop(name) for name in ("exc_info", "stack_info", "stacklevel") if name in fields}
    fields.pop("positional_args", None)
    text = " ".join([event, *(f"{name}={value!r}" for name, value in fields.items())])
    return (text,), {**passed, "extra": {_EVENT: event, _FIELDS: dict(fields)}}


def _from_record(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    record: logging.LogRecord = event["_record"]
    if hasattr(record, _FIELDS):
        event["event"] = getattr(record, _EVENT)
        for name, value in getattr(record, _FIELDS).items():
            event.setdefault(name, value)
    elif record.name.partition(".")[0] in _OURS:
        return _add_extra(_, __, event)
    return event


def configure_logging(settings: Settings) -> None:
    """Give this process's log lines the form and level of the settings; for processes that are ours.

    Handlers that exist keep their streams (Dramatiq's lead to its main process). Unless `RELIER_LOG_LEVEL` is
    set, Dramatiq's own flags keep deciding the level of others' loggers.
    """
    root = logging.getLogger()
    level = settings.log_level.upper()
    fresh = not root.handlers
    if fresh:
        root.addHandler(logging.StreamHandler(sys.stderr))
    formatter = _formatter(settings)
    for handler in root.handlers:
        handler.setFormatter(formatter)
    if fresh or "log_level" in settings.model_fields_set:
        root.setLevel(level)
    logging.getLogger("relier").setLevel(level)
    _filter_once(_RUNS_MESSAGES, _LowerSkipped)  # First: it looks at the message itself.
    for name in _SHOW_MESSAGES:
        _filter_once(name, _HidePayloads)


#: Dramatiq's logger of the threads that run messages.
_RUNS_MESSAGES = "dramatiq.worker.WorkerThread"
#: Dramatiq's loggers that print whole messages, arguments included.
_SHOW_MESSAGES = (_RUNS_MESSAGES, "dramatiq.worker.ConsumerThread")


def _filter_once(name: str, kind: type[logging.Filter]) -> None:
    logger = logging.getLogger(name)
    if not any(isinstance(known, kind) for known in logger.filters):
        logger.addFilter(kind())


class _LowerSkipped(logging.Filter):
    """Makes Dramatiq's warning of a skipped message an INFO that says why, where the store has its task or its end.

    What a middleware or an actor skips keeps its warning.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        skipped = record.args[0] if isinstance(record.args, tuple) and len(record.args) == 1 else None
        if record.levelno != logging.WARNING or not isinstance(skipped, MessageProxy):
            return True
        why = skipped.__dict__.get("relier_skipped")
        if why is None or record.msg != "Message %s was skipped.":
            return True
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        record.msg, record.args = "Message %s was skipped: %s.", (skipped, str(why))
        return logging.getLogger(record.name).isEnabledFor(logging.INFO)


class _HidePayloads(logging.Filter):
    """Names a message by its actor and its id where Dramatiq would print its arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_payload, record.args))
        return True


def _without_payload(value: Any) -> Any:
    if isinstance(value, Message | MessageProxy):
        return f"{value.actor_name}[{value.message_id}]"
    return value


def _formatter(settings: Settings) -> ProcessorFormatter:
    as_json = settings.log_format == "json"
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _from_record,
    ]
    # A plain traceback: the richer ones print local variables, and with them payloads.
    last = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    return ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[ProcessorFormatter.remove_processors_meta, *last],
    )

"""Log stable sentences with structured fields, through the standard library's logging.

`get_logger` works in any application: without `configure_logging` the fields follow the sentence as
`key=value`. Never log a payload or a secret. Which task a line belongs to: see `relier.log_context`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter

from relier.log_context import KEPT, fields_for
from relier.log_payloads import Named, guard_records

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
        event = _add_extra(_, __, event)
        event.pop(KEPT, None)
    for name, value in fields_for(record).items():
        event.setdefault(name, value)
    return event


def configure_logging(settings: Settings, *, for_people: bool = False) -> None:
    """Give this process's log lines the form and level of the settings; for processes that are ours.

    Handlers that exist keep their streams (Dramatiq's lead to its main process). Unless `RELIER_LOG_LEVEL` is
    set, Dramatiq's own flags keep deciding the level of others' loggers. structlog's loggers write the same lines,
    unless the application has configured structlog itself.

    `for_people`: of a command that ends soon: warnings only, and easy to read, unless the settings say otherwise.
    """
    root = logging.getLogger()
    chosen = settings.model_fields_set
    level = "WARNING" if for_people and "log_level" not in chosen else settings.log_level.upper()
    if not root.handlers:
        root.addHandler(_OurHandler(sys.stderr))
    formatter = _formatter("console" if for_people and "log_format" not in chosen else settings.log_format)
    for handler in root.handlers:
        handler.setFormatter(formatter)
    if "log_level" in chosen or any(isinstance(handler, _OurHandler) for handler in root.handlers):
        root.setLevel(level)
    logging.getLogger("relier").setLevel(level)
    guard_records()
    _filter_once("dramatiq.worker.WorkerThread", _LowerSkipped)
    if not structlog.is_configured():
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.filter_by_level, _to_record],
            wrapper_class=BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )


class _OurHandler(logging.StreamHandler[TextIO]):
    """The handler of a process that had none: its level is ours to decide."""


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
        if record.levelno != logging.WARNING or not isinstance(skipped, Named):
            return True
        if skipped.skipped is None or record.msg != "Message %s was skipped.":
            return True
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        record.msg, record.args = "Message %s was skipped: %s.", (skipped, skipped.skipped)
        return logging.getLogger(record.name).isEnabledFor(logging.INFO)


def _formatter(form: str) -> ProcessorFormatter:
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _from_record,
    ]
    # A plain traceback: the richer ones print local variables, and with them payloads.
    last = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=_colours(), exception_formatter=structlog.dev.plain_traceback)]
    )
    return ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[ProcessorFormatter.remove_processors_meta, *last],
    )


def _colours() -> bool:
    """Whether somebody sees the lines who wants colours; a worker's go through Dramatiq's main process."""
    return sys.__stderr__ is not None and sys.__stderr__.isatty() and not os.environ.get("NO_COLOR")

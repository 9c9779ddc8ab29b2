"""Traces through OpenTelemetry. The only module that imports it, and imported only when `RELIER_OTEL_ENABLED` is set.

A push is a producer span whose context travels in the stamp, under the seal. Each run of the task is a consumer span
under it, with a link to the run before. No span has an argument, a result, or an exception's text.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from dramatiq import Broker, Message
from dramatiq.common import q_name
from dramatiq.middleware import Middleware

from relier import __version__, log_context
from relier.ending import farewells
from relier.envelope import OPTION, Fresh, stamp_of
from relier.errors import RelierStartupError
from relier.queues import is_internal
from relier.runs import Run
from relier.seldom import Seldom
from relier.sending import is_first_hand
from relier.settings import Settings
from relier.span_export import WARNING_INTERVAL, QuietExporter, delay_ms, resource_attributes, traces_url
from relier.stacks import frames_of, type_name
from relier.store import HOOKS_ONLY, Claim, Due

MISSING = (
    "RELIER_OTEL_ENABLED is true, but OpenTelemetry is not installed ({missing}). Refusing to start. Install it with"
    " `pip install '.[otel]'` in a checkout of Relier, or unset RELIER_OTEL_ENABLED."
)

try:
    from opentelemetry import context, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise RelierStartupError(MISSING.format(missing=error.name)) from None

__all__ = ["TaskSpan", "Tracing", "provide"]

logger = logging.getLogger(__name__)

#: The fields of the stamp that hold the context of the push, as W3C's headers of these names.
HEADERS = {"tp": "traceparent", "ts": "tracestate"}
#: Longest text (characters) that is taken for such a header. A longer state, whoever sent it, is left out: the context
#: is good without it, and every message would carry it.
LONGEST = 512

#: Names of OpenTelemetry's semantic conventions for messaging; the library has them as incubating ones only.
SYSTEM, OPERATION, OPERATION_TYPE = "messaging.system", "messaging.operation.name", "messaging.operation.type"
DESTINATION, MESSAGE_ID, COUNT = "messaging.destination.name", "messaging.message.id", "messaging.batch.message_count"
BODY_SIZE, CLIENT_ID = "messaging.message.body.size", "messaging.client.id"

_propagator = TraceContextTextMapPropagator()
_seldom = Seldom(WARNING_INTERVAL)

P = ParamSpec("P")
T = TypeVar("T")


def harmless(step: Callable[P, T]) -> Callable[P, T | None]:
    """Let a step of tracing fail for itself alone: a provider is the application's, and so is what it is made of."""

    @functools.wraps(step)
    def called(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return step(*args, **kwargs)
        except Exception:
            if _seldom.may_say(step.__name__):
                logger.warning("A span could not be made; the task goes on without it.", exc_info=True)
            return None

    return called


class Tracing:
    """Makes spans of what one broker's messages go through.

    Each uses the global tracer provider of the moment: the application's, or the one of `provide`.
    """

    def __init__(self, broker: Broker) -> None:
        self._tracer = trace.get_tracer("relier", __version__)
        self._thread = threading.local()
        if _ids not in log_context.trace_ids:
            log_context.trace_ids.append(_ids)
        self._trace_pushes(broker)
        broker.middleware.insert(0, _Contexts(self))

    # -- pushes -------------------------------------------------------------------------------------------------

    def _trace_pushes(self, broker: Any) -> None:
        enqueue, enqueue_many = broker.enqueue, getattr(broker, "enqueue_many", None)

        def traced(message: Message[Any], *, delay: int | None = None) -> Message[Any]:
            if not _is_new(message):
                return enqueue(message, delay=delay)  # type: ignore[no-any-return]
            with self._sending([message]) as span:
                sent: Message[Any] = enqueue(message, delay=delay)
                span.set_attribute(MESSAGE_ID, stamp_of(sent or message).task_id)
                return sent

        def traced_many(messages: Iterable[Message[Any]]) -> list[Message[Any]]:
            batch = list(messages)
            if not any(map(_is_new, batch)):
                return enqueue_many(batch)  # type: ignore[no-any-return,misc]
            with self._sending(batch):
                return enqueue_many(batch)  # type: ignore[no-any-return,misc]

        broker.enqueue = traced
        if enqueue_many is not None:
            broker.enqueue_many = traced_many

    @contextmanager
    def _sending(self, messages: list[Message[Any]]) -> Iterator[trace.Span]:
        """Let what is enqueued meanwhile carry the context of a producer span."""
        queues, actors = {q_name(m.queue_name) for m in messages}, {m.actor_name for m in messages}
        attributes = _attributes("send", "send", queues.pop() if len(queues) == 1 else "")
        if len(actors) == 1:
            attributes["relier.actor"] = actors.pop()
        if len(messages) > 1:
            attributes[COUNT] = len(messages)
        span = self._start(attributes, SpanKind.PRODUCER) or trace.INVALID_SPAN
        token = context.attach(trace.set_span_in_context(span)) if span.get_span_context().is_valid else None
        try:
            yield span
        except BaseException as error:
            _note_failure(span, error)
            raise
        finally:
            if token is not None:
                context.detach(token)
            _end(span)

    @harmless
    def _start(
        self,
        attributes: dict[str, Any],
        kind: SpanKind,
        parent: context.Context | None = None,
        began: int | None = None,
    ) -> trace.Span:
        """Start a span, by default in that of the moment; `began`: when, in ns, unless it is now."""
        name = f"{attributes[OPERATION]} {attributes.get(DESTINATION, '')}".rstrip()
        return self._tracer.start_span(name, parent, kind, attributes, start_time=began)

    # -- runs ---------------------------------------------------------------------------------------------------

    @harmless
    def begin(self, run: Run) -> None:
        """Begin the span of a run that is about to be claimed; it counts only once it is granted."""
        attributes = _attributes("process", "process", run.sending.queue)
        attributes[MESSAGE_ID], attributes[CLIENT_ID] = run.task_id, run.worker_id
        attributes[BODY_SIZE], attributes["relier.actor"] = len(run.sending.body), run.actor_name
        span = self._start(attributes, SpanKind.CONSUMER, _context_of(run.message.options.get(OPTION)))
        if span is not None and span.get_span_context().is_valid:
            run.trace = TaskSpan(span, self._attach)
            if span.is_recording():
                run.sending = replace(run.sending, span=_headers(span)["traceparent"])

    def _attach(self, span: trace.Span) -> None:
        self.detach()
        self._thread.token = context.attach(trace.set_span_in_context(span))

    def detach(self) -> None:
        """Leave the context of the calling thread's last run."""
        token, self._thread.token = getattr(self._thread, "token", None), None
        if token is not None:
            context.detach(token)

    # -- recovery -----------------------------------------------------------------------------------------------

    @contextmanager
    def burying(self, worker: str) -> Iterator[Callable[[int], None]]:
        """Make a span of a burial; gives what is to be told how many tasks were put back."""
        attributes: dict[str, Any] = {OPERATION: "bury", "relier.dead_worker": worker}
        span = self._start(attributes, SpanKind.INTERNAL, context.Context()) or trace.INVALID_SPAN
        try:
            yield lambda tasks: span.set_attribute("relier.tasks", tasks)
        except BaseException as error:
            _note_failure(span, error)
            raise
        finally:
            _end(span)

    @harmless
    def resurrected(self, due: Due, message: Message[Any], began: int) -> None:
        """Make a span, in the task's own trace, of a copy that was published after a crash; `began`: in ns."""
        attributes = _attributes("resurrect", "send", due.queue)
        attributes |= {MESSAGE_ID: due.task_id, "relier.actor": due.actor, "relier.crashes": due.crashes}
        span = self._start(attributes, SpanKind.PRODUCER, _context_of(message.options.get(OPTION)), began)
        if span is not None:
            span.end()

    def flush(self, within: float) -> None:
        """Export what has ended, for at most so many seconds."""
        flush = getattr(trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flushing = threading.Thread(target=flush, name="relier-flush", daemon=True)
            flushing.start()
            flushing.join(within)


class TaskSpan:
    """The span of one run. It ends once; without that it is never seen."""

    __slots__ = ("_attach", "_code_ended", "_open", "_span")

    def __init__(self, span: trace.Span, attach: Callable[[trace.Span], None]) -> None:
        self._span = span
        self._attach = attach
        #: Whoever takes it ends the span.
        self._open = [True]
        self._code_ended: int | None = None

    @harmless
    def granted(self, run: Run, claim: Claim) -> None:
        """Note what the store said, and let the calling thread's code be in this span."""
        span = self._span
        span.set_attributes({"relier.fence": run.fence, "relier.attempt": run.attempt, "relier.crashes": run.crashes})
        if claim.span and claim.span != run.sending.span:
            before = trace.get_current_span(_context_of({"tp": claim.span})).get_span_context()
            span.add_link(before, {"relier.link": "earlier run"})
        if claim.verdict in HOOKS_ONLY:
            span.set_attribute("relier.replay", True)
        elif run.crashes:
            span.add_event("resurrected", {"relier.crashes": run.crashes})
        self._attach(span)

    @harmless
    def event(self, name: str, **attributes: str | int | float) -> None:
        """Note what happened just now."""
        self._span.add_event(name, {f"relier.{key}": value for key, value in attributes.items()})

    def code_ended(self) -> None:
        """Note that the run is over but for the store's answer."""
        self._code_ended = time.time_ns()

    @harmless
    def end(self, outcome: str, error: BaseException | None = None, **attributes: str | int | float) -> None:
        """End the span with what became of the run; a second call changes nothing."""
        try:
            self._open.pop()
        except IndexError:
            return
        self._span.set_attributes({"relier.outcome": outcome, **{f"relier.{k}": v for k, v in attributes.items()}})
        if error is not None:
            _note_failure(self._span, error)
        self._span.end(end_time=self._code_ended)


class _Contexts(Middleware):
    """Puts the context of a push into its stamp before that is sealed, and ends that of a run after its hooks."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        option = message.options.get(OPTION)
        if isinstance(option, dict) and (type(option) is Fresh or not {"g", "f"} & option.keys()):
            headers = _headers(trace.get_current_span())
            option.update({field: headers[name] for field, name in HEADERS.items() if headers.get(name)})

    def before_process_message(self, broker: Broker, message: Any) -> None:
        self._tracing.detach()

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self._tracing.detach()

    def after_skip_message(self, broker: Broker, message: Any) -> None:
        self._tracing.detach()


# -- steps ------------------------------------------------------------------------------------------------------------


def _is_new(message: Message[Any]) -> bool:
    """Whether a task begins with this message: it is pushed, or follows another one."""
    if is_internal(message.queue_name):
        return False
    return type(message.options.get(OPTION)) is Fresh or is_first_hand(message)


def _attributes(operation: str, kind: str, queue: str) -> dict[str, Any]:
    attributes = {SYSTEM: "dramatiq", OPERATION: operation, OPERATION_TYPE: kind}
    return {**attributes, DESTINATION: queue} if queue else attributes


@harmless
def _end(span: trace.Span) -> None:
    span.end()


def _headers(span: trace.Span) -> dict[str, str]:
    """Return W3C's headers for a span's context; none when it has no valid one."""
    at = span.get_span_context()
    if not at.is_valid:
        return {}
    ids = trace.format_trace_id(at.trace_id), trace.format_span_id(at.span_id)
    headers = {"traceparent": "00-{}-{}-{:02x}".format(*ids, at.trace_flags)}
    state = at.trace_state.to_header()
    return {**headers, "tracestate": state} if 0 < len(state) <= LONGEST else headers


def _context_of(option: Any) -> context.Context:
    """Return the context that a stamp carries; an empty one for none, or for one that is broken."""
    empty = context.Context()
    if not isinstance(option, dict):
        return empty
    headers = {name: option[field] for field, name in HEADERS.items() if field in option}
    if not all(isinstance(value, str) and len(value) <= LONGEST for value in headers.values()):
        return empty
    return _propagator.extract(headers, empty)


@harmless
def _note_failure(span: trace.Span, error: BaseException) -> None:
    """Note an exception: its type, and where it came from. Its text may hold a payload."""
    kind = type_name(error)
    span.set_status(Status(StatusCode.ERROR, kind))
    span.set_attribute("error.type", kind)
    span.add_event("exception", {"exception.type": kind, "exception.stacktrace": frames_of(error)})


def _ids() -> dict[str, str]:
    at = trace.get_current_span().get_span_context()
    if not at.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(at.trace_id), "span_id": trace.format_span_id(at.span_id)}


# -- where spans go ----------------------------------------------------------------------------------------------------


def provide(settings: Settings, role: str) -> None:
    """Export this process's spans by OTLP over HTTP, unless the application has set a tracer provider.

    For processes that are ours, once the application's modules are imported. Raises `RelierStartupError`.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise RelierStartupError(MISSING.format(missing=error.name)) from None
    exporter: Any = QuietExporter(OTLPSpanExporter(endpoint=traces_url(settings.otel_exporter_otlp_endpoint)))
    # It would wait for a collector that is away when the process ends; see `Tracing.flush`.
    provider = TracerProvider(resource=Resource.create(resource_attributes(role)), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms()))
    trace.set_tracer_provider(provider)
    farewells.append(provider.force_flush)

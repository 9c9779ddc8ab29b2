"""`rl metrics`: the Prometheus endpoint of the whole fleet, or its page once."""

from __future__ import annotations

import queue
import signal
from itertools import accumulate
from typing import Annotated, Any

import typer

from relier.errors import RelierConfigError
from relier.logging import configure_logging, get_logger
from relier.measures import Sheet, Value
from relier.metric_table import METRICS
from relier.settings import Address, get_settings
from relier.store import get_store
from relier.store.statistics import BOUNDS, Histogram
from relier_cli.application import application
from relier_cli.opening import opened_store
from relier_cli.output import print_json

log = get_logger(__name__)

#: Where the endpoint listens when nothing else is said.
DEFAULT_ADDRESS = "127.0.0.1:9192"


def metrics(
    addr: Annotated[
        str | None,
        typer.Option(help=f"host:port, or :port. Default: RELIER_METRICS_ADDR, else {DEFAULT_ADDRESS}."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the page once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the page tells as JSON, and end.")] = False,
) -> None:
    """Serve the metrics of store, broker and fleet for Prometheus, at /metrics, until SIGTERM or Ctrl-C.

    One such process tells of all workers. It serves while Redis is away, too, and says so: relier_up is 0.

    Example: rl metrics --addr :9192
    """
    address = parsed(addr)
    if once or as_json:
        _print(as_json)
    else:
        _serve(address)


def parsed(addr: str | None) -> Address | None:
    """Return host and port of --addr. Raises `typer.BadParameter`, which says what is meant."""
    from relier.exporter import listening_address

    try:
        return None if addr is None else listening_address(addr)
    except RelierConfigError as error:
        raise typer.BadParameter(str(error), param_hint="'--addr'") from None


def _print(as_json: bool) -> None:
    from relier.collecting import Collection
    from relier.metrics import page_of

    settings = get_settings()
    known = application(settings)
    with opened_store(settings) as store:
        store.runner.command("PING")  # Else what is wrong would be one line among many.
        collection = Collection(store, known.broker, settings)
        collection.reckon_burns()
        sheet = collection.sheet()
    if as_json:
        print_json(as_data(sheet))
    else:
        typer.echo(page_of(sheet, is_openmetrics=False).decode(), nl=False)


def as_data(sheet: Sheet) -> dict[str, Any]:
    """Return each family that has samples; histograms with the cumulative counts of their buckets."""
    told = [metric for metric in METRICS if metric.name in sheet.samples]
    return {
        "metrics": [
            {
                "name": metric.name,
                "type": metric.type,
                "help": metric.help,
                "samples": [
                    {"labels": dict(zip(metric.labels, labels, strict=True)), "value": _value(value)}
                    for labels, value in sheet.samples[metric.name]
                ],
            }
            for metric in told
        ]
    }


def _value(value: Value) -> Any:
    if not isinstance(value, Histogram):
        return float(value)
    buckets = zip((*BOUNDS, None), accumulate(value.counts), strict=True)
    return {"count": value.count, "sum": value.sum, "buckets": [{"le": le, "count": n} for le, n in buckets]}


def _serve(address: Address | None) -> None:
    from relier.exporter import Exporter, listening_address

    settings = get_settings()
    address = address or listening_address(settings.metrics_addr or DEFAULT_ADDRESS)
    configure_logging(settings)
    known = application(settings)
    for line in known.trouble:
        log.warning(line)
    store = get_store(settings)
    exporter = Exporter(store, known.broker, settings, address)
    #: May be put to in a signal handler, which must not touch what the main thread may hold.
    wishes: queue.SimpleQueue[None] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wishes.put(None))
    exporter.start()
    log.info("Serving metrics.", url=exporter.url)
    wishes.get()
    exporter.stop()
    store.close()

"""Measure what traces cost: the same tasks without and with them, alternating, on one server, and to a collector.

    python benchmarks/tracing.py [--tasks 5000] [--rounds 5] [--sampled 1.0]

Prints the median rates, the processor time of a task and of a push, and the ratios pair by pair. One worker process,
8 threads, a no-op actor, prefetch 200; the collector is another process that takes spans and forgets them. `--sampled`:
the part of traces that is kept (`OTEL_TRACES_SAMPLER=parentbased_traceidratio`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.throughput import run_child


class Sink(BaseHTTPRequestHandler):
    """Takes whatever is posted."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def collect() -> None:
    """Be a collector, until the process is ended; prints the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def run(tasks: int) -> dict[str, float]:
    from relier.settings import get_settings

    settings = get_settings()
    if settings.otel_enabled:
        from relier.tracing import provide

        provide(settings, "benchmark")
    result = run_child("relier", tasks)
    return {**result, "threads": threading.active_count()}


def spawn(traced: bool, args: argparse.Namespace, url: str, collector: str) -> dict[str, float]:
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "RELIER_REDIS_URL": url,
        "RELIER_LOG_LEVEL": "error",
        "RELIER_ADMISSION_LIMIT": str(10**9),
        "RELIER_OTEL_ENABLED": str(traced).lower(),
        "RELIER_OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_BSP_MAX_QUEUE_SIZE": str(10**6),  # Nothing is dropped, which would be cheaper.
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(args.sampled),
        "dramatiq_queue_prefetch": "200",
    }
    command = [sys.executable, "-m", "benchmarks.tracing", "--child", "--tasks", str(args.tasks)]
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(out.splitlines()[-1])
    return result


def compare(args: argparse.Namespace, url: str, collector: str) -> None:
    off, on = [], []
    for i in range(args.rounds + 1):
        pair = [spawn(traced, args, url, collector) for traced in (False, True)]
        if i:  # The first pair warms up.
            off.append(pair[0])
            on.append(pair[1])
    ratios = sorted(b["rate"] / a["rate"] for a, b in zip(off, on, strict=True))
    rate, cpu, send = (
        [statistics.median(each[name] for each in side) for side in (off, on)] for name in ("rate", "cpu", "send")
    )
    print(
        f"sampled {args.sampled:g}: without {rate[0]:.0f}/s, with {rate[1]:.0f}/s, ratio"
        f" {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); processor time"
        f" {cpu[0] * 1e6:.0f} and {cpu[1] * 1e6:.0f} µs a task; push {send[0] * 1e6:.0f} and {send[1] * 1e6:.0f} µs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sampled", type=float, default=1.0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--collector", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.collector:
        collect()
    elif args.child:
        print(json.dumps(run(args.tasks)))
    else:
        measure(args)


def measure(args: argparse.Namespace) -> None:
    from relier.embedded import ensure_server

    command = [sys.executable, "-m", "benchmarks.tracing", "--collector"]
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sink:
        server = ensure_server(Path(folder))
        try:
            assert sink.stdout is not None
            compare(args, server.url, sink.stdout.readline().strip())
        finally:
            sink.kill()
            server.close()


if __name__ == "__main__":
    main()

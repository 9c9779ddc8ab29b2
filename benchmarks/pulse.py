"""Measure what the pulse of a worker costs: memory of its child process, and time to start it.

    python -m benchmarks.pulse [--starts 20]

Memory is what the child has for itself (`Private_Dirty` of the kernel) and all that it maps (`Rss`). The time to start
is that of the call in the worker, and until the first pulse is in the store. Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import threading
import time
from pathlib import Path

from relier.control import ControlChannel
from relier.pulse import Pulse
from relier.settings import Settings
from relier.store import Store
from tests import sources
from tests.waiting import wait_until


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20)
    starts: int = parser.parse_args().starts
    server = sources.start("embedded")
    store = Store.from_settings(Settings(redis_url=server.url))
    worker = f"host:{os.getpid()}:pulse"
    store.fleet.register(worker, {})
    control = ControlChannel(store, lambda: worker, lambda _: None)
    control.start()
    control.subscribed.wait(10)
    called, given, dirty, rss = [], [], [], []
    for _ in range(starts):
        pulse, seen = Pulse(store, control.endpoint, 0.25), store.fleet.observe().pulses.get(worker, 0)
        start = time.perf_counter()
        pulse.tend(worker)
        called.append(time.perf_counter() - start)
        wait_until(lambda seen=seen: store.fleet.observe().pulses.get(worker, 0) > seen, 30, "a pulse")
        given.append(time.perf_counter() - start)
        dirty.append(_memory(pulse, "Private_Dirty"))
        rss.append(_memory(pulse, "Rss"))
        pulse.stop()
    control.stop()
    store.close()
    server.close()
    print(f"{starts} starts, {threading.active_count()} threads, {os.cpu_count()} cores")
    print(f"memory of its own:      {max(dirty) / 1024:6.1f} MB")
    print(f"memory that it maps:    {max(rss) / 1024:6.1f} MB")
    print(f"call in the worker:     {statistics.median(called) * 1e3:6.1f} ms, {max(called) * 1e3:.1f} at most")
    print(f"until the first pulse:  {statistics.median(given) * 1e3:6.1f} ms, {max(given) * 1e3:.1f} at most")


def _memory(pulse: Pulse, field: str) -> int:
    """Return a field of the kernel's account, in kB."""
    found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pulse.pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found, field
    return int(found[1])


if __name__ == "__main__":
    main()

"""The clocks of a worker and of a server really move, and only the wall clock does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PrivateServers
from tests.faults.clock import HOUR, FakeClock
from tests.waiting import wait_until

_TELL = """
import json, time, threading
start = time.monotonic()
time.sleep(0.2)
threading.Event().wait(0.2)
print(json.dumps([time.time(), start, time.monotonic()]))
"""


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_python_process_is_off_by_an_hour_but_sleeps_and_waits_as_long_as_ever(
    faketime: Path, tmp_path: Path, offset: int
) -> None:
    clock = FakeClock(tmp_path, offset)
    with clock.applied():
        process = subprocess.run([sys.executable, "-c", _TELL], capture_output=True, text=True, check=True, timeout=200)
    wall, start, end = json.loads(process.stdout)
    assert clock.is_told_by(wall)
    assert 0.4 <= end - start < 60


def test_a_servers_clock_jumps_while_it_runs(faketime: Path, tmp_path: Path, private_server: PrivateServers) -> None:
    clock = FakeClock(tmp_path)
    with clock.applied():
        server = private_server("embedded")
    with server.client() as client:
        for offset in (HOUR, -HOUR):
            clock.set(offset)
            wait_until(lambda: clock.is_told_by(client.time()[0]), 60, f"a clock that is off by {offset} s")


def test_other_processes_have_the_real_time(faketime: Path, tmp_path: Path) -> None:
    clock = FakeClock(tmp_path, HOUR)
    with clock.applied():
        pass
    process = subprocess.run([sys.executable, "-c", _TELL], capture_output=True, text=True, check=True, timeout=200)
    assert not clock.is_told_by(json.loads(process.stdout)[0])

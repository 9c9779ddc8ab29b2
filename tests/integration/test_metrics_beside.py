"""A resurrector serves metrics beside its work, and does that work where it cannot."""

from __future__ import annotations

import contextlib
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from relier.settings import Settings
from relier.store import Store
from tests.processes import Started
from tests.servers import RedisServer
from tests.servers.service import free_port
from tests.waiting import wait_until


def page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_resurrectors_of_one_host_may_share_the_address(server: RedisServer, store_url: str, tmp_path: Path) -> None:
    port = free_port()
    store = Store.from_settings(Settings(redis_url=store_url))
    variables = {"redis_url": store_url, "metrics_addr": f"127.0.0.1:{port}"}
    with Started(tmp_path, "relier_cli.app", "run-resurrector", **variables) as first:
        wait_until(lambda: "relier_resurrectors 1.0" in page(port), 60, "metrics of the first")
        with Started(tmp_path, "relier_cli.app", "run-resurrector", **variables) as second:
            wait_until(lambda: "No metrics are served here." in second.output, 60, "the second to go on without")
            wait_until(lambda: "relier_resurrectors 2.0" in page(port), 60, "the second to work")
            assert second.terminate() == 0
        assert first.terminate() == 0
    assert page(port) == ""
    store.close()


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_without_the_setting_nothing_is_loaded(server: RedisServer, store_url: str, tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text(
        "import sys\nfrom relier_cli.app import app\nimport relier.resurrector\n"
        "assert 'relier.exporter' not in sys.modules\n"
    )
    with Started(tmp_path, "loaded", redis_url=store_url) as process:
        assert process.ended() == 0, process.output


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_signals_may_come_at_any_moment(server: RedisServer, store_url: str, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with Started(tmp_path, "relier_cli.app", "metrics", "--addr", address, redis_url=store_url) as process:
        wait_until(lambda: "Serving metrics." in process.output, 60, "the endpoint")
        with contextlib.suppress(ProcessLookupError):
            for _ in range(2000):  # While it ends: a supervisor and a terminal may both ask.
                os.kill(process.process.pid, signal.SIGTERM)
                os.kill(process.process.pid, signal.SIGINT)
        process.ended()

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import sources
from tests.conftest import PrivateServers
from tests.processes import alive
from tests.servers.redis_servers import REDIS_URL_VARIABLE, GivenRedis
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent


def run_pytest_without_redis(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RELIER_")}
    clean.update(PATH="", DOCKER_HOST="unix:///nonexistent", **environment)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "tests/test_servers.py",
        "-k",
        "start_of_a_test",
        *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=200, check=False)


def test_a_missing_server_is_named_loudly() -> None:
    result = run_pytest_without_redis()
    assert result.returncode == 0, result.stdout
    assert "redis: MISSING" in result.stdout
    assert "! NOT RUN !" in result.stdout
    assert "redis: no RELIER_TEST_REDIS_URL, no Docker engine, no redis-server >= 7 on PATH" in result.stdout


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_missing_server_that_is_required_fails_the_run(processes: str) -> None:
    result = run_pytest_without_redis("-n", processes, RELIER_TEST_REQUIRE="embedded,redis")
    assert result.returncode == 1, result.stdout
    assert "(1 skipped)" in result.stdout
    assert "FAILED: RELIER_TEST_REQUIRE asks for redis" in result.stdout


def test_a_misspelt_requirement_fails_the_run() -> None:
    result = run_pytest_without_redis(RELIER_TEST_REQUIRE="embeded")
    assert result.returncode == 1, result.stdout
    assert "FAILED: RELIER_TEST_REQUIRE asks for embeded: no such backend" in result.stdout


def test_a_given_server_with_other_data_is_refused(
    private_server: PrivateServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = private_server()
    monkeypatch.setenv(REDIS_URL_VARIABLE, server.url)
    assert isinstance(sources.start("redis"), GivenRedis)

    with server.client() as client:
        client.set("precious", "data")
        with pytest.raises(RuntimeError, match="holds other data"):
            sources.start("redis")
        assert client.get("precious") == b"data"


def test_a_given_server_is_never_hurt(private_server: PrivateServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REDIS_URL_VARIABLE, private_server().url)
    monkeypatch.setattr(sources, "docker_answers", lambda: False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(sources.Unavailable):
        sources.start("redis", private=True)


def test_everything_that_a_server_started_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from tests.servers.service import LocalProcess
folder = Path(sys.argv[1])
process = LocalProcess(["/bin/sh", "-c", f"sleep 600 & echo $! $$ >{folder}/pids; wait"], folder / "log")
(folder / "watched").touch()
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    pids = tmp_path / "pids"
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60, "the started processes")
    wait_until((tmp_path / "watched").exists, 60, "the guard")
    process.kill()
    process.wait()
    started = [int(pid) for pid in pids.read_text().split()]
    wait_until(lambda: not any(alive(pid) for pid in started), 60, "the end of what it started")


@contextmanager
def engine(body: bytes) -> Iterator[str]:
    """Answer every GET with the body, as a Docker engine or something else would."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("body", "answers"), [(b"OK", True), (b"<html>", False)])
def test_only_a_docker_engine_counts_as_one(monkeypatch: pytest.MonkeyPatch, body: bytes, answers: bool) -> None:
    with engine(body) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        assert sources.docker_answers.__wrapped__() is answers


def test_a_container_that_does_not_start_gives_way_to_the_next_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REDIS_URL_VARIABLE, raising=False)
    monkeypatch.setattr(sources, "docker_answers", lambda: True)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(sources.Unavailable, match="container redis:7"):
        sources.start("redis")

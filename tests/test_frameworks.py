"""The example applications run: each with its own server and a real worker, on the embedded Redis."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import guard
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent

#: How each application is served on a port that is free, and what its workers import.
APPLICATIONS = {
    "fastapi_app": (["-m", "uvicorn", "app:app", "--port", "0"], "tasks"),
    "flask_app": (["-m", "flask", "run", "--port", "0"], "tasks"),
    "django_app": (["manage.py", "runserver", "--noreload", "127.0.0.1:0"], "words.worker"),
}

#: As many tasks as the application lets through in ten minutes.
LIMIT = 10


@dataclass(frozen=True)
class Answer:
    """What an endpoint said."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass
class Site:
    """One example with its worker, in a state folder of its own."""

    folder: Path
    state: Path
    #: Settings of its own.
    more: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    port: int = 0

    def start(self, name: str, arguments: list[str], ready: str) -> str:
        """Start a process; returns what `ready` finds in its output."""
        log = self.state / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env={
                    **os.environ,
                    "RELIER_STATE_DIR": str(self.state / "redis"),
                    "RELIER_ADMISSION_LIMIT": str(LIMIT),
                    "RELIER_ADMISSION_WINDOW": "600",
                    **self.more,
                    "PYTHONPATH": str(ROOT),
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        guard.watch(process.pid)
        self.processes.append(process)

        def found() -> str:
            text = log.read_text(errors="replace")
            assert process.poll() is None, text
            match = re.search(ready, text)
            return match[match.re.groups] if match else ""

        return wait_until(found, 100, f"{ready} in the output of {name}")

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Send a request, whose body is JSON unless it is bytes; `path` may be a whole URL of this site."""
        target = urllib.parse.urlsplit(path)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=100)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body)
            where = target.path + (f"?{target.query}" if target.query else "")
            connection.request(method, where, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
            assert response.status != 500, self.output()
            headers = {name.lower(): value for name, value in response.getheaders()}
            is_json = headers.get("content-type", "").startswith("application/json")
            return Answer(response.status, headers, json.loads(text) if is_json else text)

    def result(self, task_id: str) -> Answer:
        """Wait for the answer of a task that ends."""
        answers: list[Answer] = []

        def has_ended() -> bool:
            answers.append(self.ask("GET", f"/tasks/{task_id}/result?wait=5"))
            return answers[-1].status != 202

        wait_until(has_ended, 100, "the end of a task")
        return answers[-1]

    def output(self) -> str:
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in sorted(self.state.glob("*.log")))

    def close(self) -> None:
        for process in self.processes:
            guard.forget(process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(params=APPLICATIONS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def served(name: str, state: Path, **more: str) -> Iterator[Site]:
    """Serve one of the applications, without a worker."""
    site = Site(ROOT / "examples" / name, state, more)
    try:
        site.port = int(site.start("server", APPLICATIONS[name][0], r"http://127\.0\.0\.1:(\d+)"))
        yield site
    finally:
        site.close()


@pytest.fixture
def site(name: str, tmp_path: Path) -> Iterator[Site]:
    with served(name, tmp_path) as site:
        actors = APPLICATIONS[name][1]
        site.start("worker", ["-m", "dramatiq", "relier.workers", actors, "-p", "1", "-t", "2"], "ready for action")
        yield site


def test_an_example_enqueues_answers_with_results_and_refuses_what_is_too_much(site: Site) -> None:
    accepted = site.ask("POST", "/counts", {"text": "To be or not to be"})
    assert accepted.status == 202, site.output()
    task_id = accepted.body["id"]

    counted = site.result(task_id)
    assert (counted.status, counted.body["result"]) == (200, {"to": 2, "be": 2, "or": 1, "not": 1})
    assert site.ask("GET", accepted.headers["location"]).body == {"id": task_id, "status": "completed"}
    assert site.ask("DELETE", f"/tasks/{task_id}").body["outcome"] == "ended"

    failed = site.result(site.ask("POST", "/counts", {"text": " "}).body["id"])
    assert (failed.status, failed.body["reason"]) == (409, "ValueError")

    answers = [site.ask("POST", "/counts", {"text": "more"}) for _ in range(LIMIT - 1)]
    assert {answer.status for answer in answers} == {202, 429}
    refused = answers[-1]
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) < 2 * 600
    assert site.ask("GET", "/tasks/nobody").body["status"] == "unknown"
    assert site.ask("GET", "/tasks/nobody/result").status == 202


def test_an_example_says_which_requests_are_wrong_and_when_redis_is_away(name: str, tmp_path: Path) -> None:
    nobody = "redis://127.0.0.1:1/0"  # the kernel gives no program port 1 of a test machine
    with served(name, tmp_path, RELIER_REDIS_URL=nobody) as site:
        wrong: list[Any] = [b"{", {"txt": "more"}, {"text": 7}, []]
        for body in wrong:
            assert site.ask("POST", "/counts", body).status in (400, 422)
        requests: list[tuple[str, str, Any]] = [
            ("POST", "/counts", {"text": "more"}),
            ("GET", "/tasks/some", None),
            ("GET", "/tasks/some/result", None),
        ]
        for method, path, body in requests:
            answer = site.ask(method, path, body)
            assert (answer.status, answer.headers.get("retry-after")) == (503, "1"), site.output()
        if name != "flask_app":  # Flask takes a number that is none for one that is missing.
            assert site.ask("GET", "/tasks/some/result?wait=long").status in (400, 422)

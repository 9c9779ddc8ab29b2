"""A real Prometheus: it scrapes what it is told, and answers queries; and its promtool, which checks rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.service import LocalProcess, NotStarted, free_port, start_on_free_ports
from tests.waiting import wait_until

#: Time (s) in which promtool must have ended, on a busy machine.
PATIENCE = 120.0


class Prometheus:
    """A Prometheus of our own on loopback. Its data go with it.

    Parameters:
      server, tool: the programs.
    """

    def __init__(self, server: str, tool: str) -> None:
        self.description = f"{server} {_version(server)}"
        self._server, self._tool = server, tool
        self._folder = Path(tempfile.mkdtemp(prefix="rl-prometheus-"))
        self._process: LocalProcess | None = None
        self.url = ""

    # -- promtool ---------------------------------------------------------------------------------------------------

    def check(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run promtool until it ends."""
        command = [self._tool, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    # -- the server -------------------------------------------------------------------------------------------------

    def start(self, config: str, *files: Path) -> None:
        """Start it with the text of a prometheus.yml; `files` are put beside that. Returns when it is ready."""
        path = self._folder / "prometheus.yml"
        path.write_text(config, encoding="utf-8")
        for file in files:
            shutil.copy(file, self._folder)
        start_on_free_ports(lambda: self._start_on(free_port(), path))

    def _start_on(self, port: int, config: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        log = self._folder / "log"
        self._process = LocalProcess(
            [
                self._server,
                f"--config.file={config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.console.libraries=",
                "--web.console.templates=",
            ],
            log,
        )
        wait_until(lambda: self._has_ended or self._is_ready(), 60, "Prometheus to be ready")
        if self._has_ended:
            self._process.kill()
            raise NotStarted(f"Prometheus did not start: {log.read_text()[-2000:]}")

    @property
    def _has_ended(self) -> bool:
        return self._process is not None and self._process.has_ended

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, what: str, **parameters: str) -> Any:
        """Ask its API, e.g. `ask("query", query="up")`. Raises `AssertionError` with what it says is wrong."""
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, promql: str) -> dict[Mapping[str, str] | tuple[tuple[str, str], ...], float]:
        """Return the value of each series of an instant query, by its sorted labels without the name."""
        found: dict[Any, float] = {}
        for series in self.ask("query", query=promql)["result"]:
            labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
            found[tuple(sorted(labels.items()))] = float(series["value"][1])
        return found

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _version(server: str) -> str:
    told = subprocess.run([server, "--version"], check=False, capture_output=True, text=True, timeout=60)
    words = (told.stdout + told.stderr).split()
    return words[words.index("version") + 1] if "version" in words else ""

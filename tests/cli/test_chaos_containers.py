"""A Redis in a container is taken away and put back, by a `docker` that is a script, and notes what it is told.

It stops and continues a real server, so what the fleet sees is as real as with a paused container.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from relier_cli.chaos.containers import By, plan
from tests import guard, schemas, sources, spawn
from tests.conftest import skip
from tests.integration.harness import Harness
from tests.waiting import wait_until

#: What `docker inspect` tells of a container of Compose with two networks.
ABOUT: dict[str, Any] = {
    "Id": "0123456789abcdef",
    "State": {"Running": True, "Paused": False},
    "NetworkSettings": {
        "Networks": {
            "shop_default": {"Aliases": ["redis", "cache", "0123456789ab"], "IPAMConfig": None},
            "shop_back": {"Aliases": ["redis"], "IPAMConfig": {"IPv4Address": "172.30.0.5"}},
        }
    },
}

_DOCKER = """#!{python}
import os, signal, sys
folder = {folder!r}
words = sys.argv[1:]
with open(folder + "/told", "a") as told: told.write(" ".join(words) + "\\n")
if words[0] == "inspect":
    if not os.path.exists(folder + "/about"): sys.exit("Error: No such container: " + words[-1])
    print(open(folder + "/about").read())
what = words[1] if words[0] == "network" else words[0]
fails = folder + "/fail-" + what
if os.path.exists(fails):
    os.unlink(fails)
    sys.exit("the engine is busy")
if os.path.exists(folder + "/pid") and what in ("disconnect", "pause", "connect", "unpause"):
    os.kill(int(open(folder + "/pid").read()), signal.SIGSTOP if what in ("disconnect", "pause") else signal.SIGCONT)
"""


@dataclass
class Docker:
    """The script, and what it was told."""

    folder: Path

    def knows(self, about: dict[str, Any]) -> None:
        (self.folder / "about").write_text(json.dumps([about]))

    def fails_once(self, what: str) -> None:
        (self.folder / f"fail-{what}").touch()

    def stops(self, server: Any) -> None:
        """Let what it does to the container happen to a server."""
        (self.folder / "pid").write_text(str(server.pid))

    @property
    def told(self) -> list[str]:
        path = self.folder / "told"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put the script where a `docker` is looked for."""
    folder = tmp_path_factory.mktemp("docker")
    script = folder / "docker"
    script.write_text(_DOCKER.format(python=sys.executable, folder=str(folder)))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield folder


@pytest.fixture
def docker(script: Path) -> Docker:
    for name in ("told", "pid"):
        (script / name).unlink(missing_ok=True)
    docker = Docker(script)
    docker.knows(ABOUT)
    return docker


def test_a_container_comes_back_with_its_names_and_its_fixed_address(docker: Docker) -> None:
    found = plan("redis-1", By.DISCONNECT)
    assert [" ".join(words) for words in found.away] == [
        "docker network disconnect shop_default redis-1",
        "docker network disconnect shop_back redis-1",
    ]
    assert [" ".join(words) for words in found.back] == [
        "docker network connect --alias redis --alias cache shop_default redis-1",
        "docker network connect --alias redis --ip 172.30.0.5 shop_back redis-1",
    ]


def test_a_container_can_be_paused(docker: Docker) -> None:
    found = plan("redis-1", By.PAUSE)
    assert (found.away, found.back) == ([["docker", "pause", "redis-1"]], [["docker", "unpause", "redis-1"]])


@pytest.mark.parametrize(
    ("about", "why"),
    [
        (None, "docker knows no container 'redis-1': Error: No such container: redis-1."),
        ({"State": {"Running": False}}, "does not run, or is paused already"),
        ({"State": {"Running": True, "Paused": True}}, "does not run, or is paused already"),
        ({**ABOUT, "NetworkSettings": {"Networks": {"host": {}}}}, "use --by pause"),
    ],
)
def test_what_cannot_be_taken_away_is_refused(
    docker: Docker, capsys: pytest.CaptureFixture[str], about: dict[str, Any] | None, why: str
) -> None:
    (docker.folder / "about").unlink()
    if about is not None:
        docker.knows(about)
    with pytest.raises(typer.Exit) as ended:
        plan("redis-1", By.DISCONNECT)
    assert ended.value.exit_code == 2
    assert why in capsys.readouterr().err


def test_without_a_docker_nothing_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(typer.Exit) as ended:
        plan("redis-1", By.PAUSE)
    assert ended.value.exit_code == 2


@pytest.fixture(scope="module")
def fleet(script: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    try:
        server = sources.start("embedded", private=True)
    except sources.Unavailable as error:
        skip(request, error)
    fleet = Harness(server, tmp_path_factory.mktemp("fleet"), chaos_enabled="true", redis_socket_timeout=1)
    fleet.worker(threads=2).wait_settled_in()
    yield fleet
    fleet.close()
    server.close()


WORDS = ["chaos", "network-partition", "--container", "redis-1", "--yes", "--json"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "relier_cli.app", *WORDS, *words]


def test_tasks_go_on_when_redis_is_back(docker: Docker, fleet: Harness) -> None:
    docker.stops(fleet.server)
    docker.fails_once("connect")

    done = spawn.run(command("--seconds", "3"), env=fleet.environment(), cwd=fleet.folder, timeout=150)

    assert done.stdout, done.stderr
    schemas.check_output(WORDS, done.stdout)
    told = json.loads(done.stdout)
    assert (done.returncode, told["held"], told["verified"]) == (0, True, True), (told, fleet.report())
    assert told["completed"] == told["probes"] > 0
    assert [line for line in docker.told if " connect " in line] == [
        "network connect --alias redis --alias cache shop_default redis-1",
        "network connect --alias redis --alias cache shop_default redis-1",
        "network connect --alias redis --ip 172.30.0.5 shop_back redis-1",
    ]


def test_a_container_that_is_not_missed_is_none_of_this_redis(docker: Docker, fleet: Harness) -> None:
    done = spawn.run(command("--seconds", "1"), env=fleet.environment(), cwd=fleet.folder, timeout=150)

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["findings"] == ["Redis answered all the time: is redis-1 its container?"]


def test_a_container_is_put_back_when_the_command_is_killed(docker: Docker, fleet: Harness) -> None:
    """The last one: the tasks of a command that is killed stay for up to 15 s."""
    with (fleet.folder / "log").open("wb") as log:
        process = spawn.start(
            command("--seconds", "600", "--by", "pause"),
            env=fleet.environment(),
            cwd=fleet.folder,
            stdout=log,
            stderr=log,
        )
    wait_until(lambda: "pause redis-1" in docker.told, 60, "the pause")

    process.kill()

    wait_until(lambda: "unpause redis-1" in docker.told, 60, "the end of the pause")
    process.wait()
    guard.forget(process.pid)
    fleet.wait(fleet.server.answers, what="Redis")

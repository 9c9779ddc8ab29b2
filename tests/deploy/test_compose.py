"""The Compose files: their shape, what they name, and their services' very commands, run without an engine."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from relier.settings import Settings, unknown_variables
from relier.store import Store
from tests import processes
from tests.conftest import skip
from tests.deploy.commands import resolve
from tests.deploy.shapes import COMPOSE
from tests.deploy.shipped import ROOT, USERS, ShippedRedis
from tests.processes import Started
from tests.servers.rabbitmq_servers import RABBITMQ_IMAGE
from tests.servers.redis_servers import REDIS_IMAGE
from tests.sources import Unavailable
from tests.waiting import wait_until

DEPLOY = ROOT / "deploy"
FILES = ("compose.yaml", "compose.dev.yaml")
OURS = ("worker", "worker-recovery", "resurrector")


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return found


def services(name: str) -> dict[str, Any]:
    found: dict[str, Any] = load(name)["services"]
    return found


def seconds(span: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)([smh])", span))


def filled(text: str) -> str:
    """Return a value with its variables at their defaults."""
    return re.sub(r"\$\{[A-Z_]+(?::-([^}]*)|:\?[^}]*)?\}", lambda found: found[1] or "", text)


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_the_shape_of_a_compose_file(file: str) -> None:
    jsonschema.Draft202012Validator(COMPOSE).validate(load(file))


@pytest.mark.parametrize("file", FILES)
def test_what_a_file_names_is_there(file: str, tmp_path: Path) -> None:
    told = load(file)
    made = {path.name for path in _secrets(tmp_path).iterdir()}
    for name, service in told["services"].items():
        assert set(service.get("depends_on", ())) <= set(told["services"]), name
        assert set(service.get("networks", ())) <= set(told.get("networks", ())), name
        assert set(service.get("secrets", ())) <= set(told.get("secrets", ())), name
        for other, terms in service.get("depends_on", {}).items():
            assert terms["condition"] != "service_healthy" or "healthcheck" in told["services"][other], name
        for volume in service.get("volumes", ()):
            source = filled(volume).split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in told["volumes"], (name, volume)
        assert {Path(path).name for path in service.get("env_file", ())} <= made, name
    assert {Path(secret["file"]).name for secret in told.get("secrets", {}).values()} <= made


@pytest.mark.parametrize("file", FILES)
def test_images_are_pinned_to_versions_that_the_tests_run_on(file: str) -> None:
    for name, service in services(file).items():
        image = service["image"]
        if name in OURS:
            continue
        assert re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)?$", image), (name, image)
        for tested in (REDIS_IMAGE, RABBITMQ_IMAGE):
            if image.startswith(tested.partition(":")[0]):
                assert image.removesuffix("-management") == tested


@pytest.mark.parametrize("file", FILES)
def test_only_this_machine_can_reach_a_port(file: str) -> None:
    for name, service in services(file).items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


@pytest.mark.parametrize("file", FILES)
def test_our_services_have_commands_settings_and_time_to_drain(file: str) -> None:
    commands = {name: resolve(services(file)[name]["command"]) for name in OURS}
    assert commands == {"worker": "worker start", "worker-recovery": "worker start", "resurrector": "run-resurrector"}
    for name in OURS:
        service = services(file)[name]
        settings = {key: filled(value) for key, value in service["environment"].items()}
        assert unknown_variables(settings) == []
        given = {key.removeprefix("RELIER_").lower(): value for key, value in settings.items() if value}
        timeout = Settings(**given).graceful_shutdown_timeout
        assert seconds(service["stop_grace_period"]) >= timeout + 10
        assert urlsplit(settings["RELIER_REDIS_URL"]).username == name.partition("-")[0]


def test_production_has_no_secret_in_its_file_and_no_privilege() -> None:
    for name, service in services("compose.yaml").items():
        for key, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET|KEYS", key), name
            assert "://" not in value or urlsplit(value).password is None, name
        if name in OURS or name.startswith(("redis", "sentinel")):
            assert service["read_only"] and service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
    roles = {name.removeprefix("redis_password_") for name in load("compose.yaml")["secrets"]}
    assert roles == set(USERS)


def _secrets(folder: Path) -> Path:
    made = folder / "secrets"
    done = subprocess.run(
        ["sh", str(DEPLOY / "make-secrets.sh"), str(made)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return made


def test_passwords_are_made_once_and_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    made = _secrets(tmp_path)
    before = {path.name: path.read_text() for path in made.iterdir()}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    passwords = [text for name, text in before.items() if name.startswith("redis_password_")]
    assert len(set(passwords)) == len(USERS)
    assert all(len(password) == 32 and not password.endswith("\n") for password in passwords)
    assert before["worker.env"] == f"RELIER_REDIS_PASSWORD={before['redis_password_worker']}\n"
    assert {path.name: path.read_text() for path in _secrets(tmp_path).iterdir()} == before


def test_the_development_stack_runs(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The services' commands, settings and health checks, on servers of this machine in the containers' place."""
    told = services("compose.dev.yaml")
    with ExitStack() as stack:
        try:
            server = ShippedRedis(passwords=told["redis"]["environment"])
        except Unavailable as error:
            skip(request, error)
        stack.callback(server.close)

        def settings(name: str) -> dict[str, str]:
            given = {key: filled(value) for key, value in told[name]["environment"].items()}
            given["RELIER_REDIS_URL"] = given["RELIER_REDIS_URL"].replace("redis:6379", f"127.0.0.1:{server.port}")
            given.pop("RELIER_METRICS_ADDR", None)
            return {key.removeprefix("RELIER_").lower(): value for key, value in given.items()}

        app = tmp_path / "app"
        shutil.copytree(DEPLOY / filled(told["worker"]["volumes"][0]).split(":")[0], app)
        running = {
            name: stack.enter_context(Started(app, "relier_cli.app", *told[name]["command"][1:], **settings(name)))
            for name in OURS
        }
        (health,) = re.findall(r"^HEALTHCHECK .*CMD \[(.*)\]", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
        check = [word.strip(' "') for word in health.split(",")][1:]
        store = Store.from_settings(Settings(redis_url=server.url))
        stack.callback(store.close)
        wait_until(lambda: len(store.fleet.workers()) == 4, 90, f"four processes: {running['worker'].output}")
        for name in ("worker", "resurrector"):
            done = processes.rl(app, *check, **settings(name))
            assert done.returncode == 0, f"{name}: {done.stderr}"
        probe = subprocess.run(
            ["sh", "-c", told["redis"]["healthcheck"]["test"][1].replace("redis-cli", f"redis-cli -p {server.port}")],
            check=False,
        )
        assert probe.returncode == 0
        producer = settings("worker")["redis_url"].replace("worker:", "producer:")
        pushed = processes.run(app, "quickstart", redis_url=producer)
        assert "Hello, Ann!" in pushed.stdout, pushed.stdout + pushed.stderr
        assert server.refused() == []

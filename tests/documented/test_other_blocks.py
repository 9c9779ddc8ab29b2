"""What the pages show beside Python and commands: settings, files of servers and services, lines of logs."""

from __future__ import annotations

import configparser
import copy
import json
import os
import re
import shlex
from typing import Any

import jsonschema
import pytest
import yaml

from relier.settings import Settings, unknown_variables
from tests.conftest import PrivateServers
from tests.deploy.commands import resolve
from tests.deploy.shapes import KUBERNETES
from tests.documented.pages import PAGES, ROOT, Block, blocks
from tests.documented.test_commands import ELSEWHERE

#: Languages that have a test: in this file, in tests/test_docs.py (python) and in test_commands.py (sh, console).
TESTED = {"json", "env", "ini", "yaml", "conf", "python", "sh", "console"}
#: The least time (s) between the end of the time for draining and SIGKILL, as docs/shutdown.md says.
SPARE = 3

ALL = [block for page in PAGES for block in blocks(page)]


def shown(language: str) -> list[Any]:
    """Return the blocks in a language that no other test sees to."""
    found = [b for b in ALL if b.language == language and not ELSEWHERE.match(b.mark)]
    return [pytest.param(block, id=str(block)) for block in found]


def test_every_block_is_tested_or_is_text() -> None:
    untested = [
        f"{block}: {block.language or 'no language'}"
        for block in ALL
        if block.language not in TESTED | {"text"} and not ELSEWHERE.match(block.mark)
    ]
    assert untested == [], "say `text`, or `<!-- run by tests/… -->` in the line before"


def test_every_fence_is_found() -> None:
    """One with more than a word behind it, or of other signs, would be overlooked."""
    for page in PAGES:
        fences = re.findall(r"^[ \t>]*(?:`{3,}|~{3,})", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), page.name


@pytest.mark.parametrize("block", [pytest.param(b, id=str(b)) for b in ALL if ELSEWHERE.match(b.mark)])
def test_what_runs_other_blocks_exists(block: Block) -> None:
    match = ELSEWHERE.match(block.mark)
    assert match
    assert (ROOT / match[1]).is_file()


@pytest.mark.parametrize("block", shown("json"))
def test_json_is_one_value_or_one_on_each_line(block: Block) -> None:
    try:
        assert json.loads(block.code)
    except json.JSONDecodeError:
        assert all(isinstance(json.loads(line), dict) for line in block.code.splitlines())


def environment_of(lines: str) -> dict[str, str]:
    """Return the variables that lines such as `NAME=value  # why` give."""
    words = shlex.split(lines, comments=True)
    assert all("=" in word for word in words), words
    return dict(word.split("=", 1) for word in words)


def read_as_settings(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a process with these variables; each must have been read."""
    for name in [name for name in os.environ if name.startswith("RELIER_")]:
        monkeypatch.delenv(name)  # those of the test run
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert unknown_variables(variables) == []
    settings = Settings()
    assert {f"RELIER_{name.upper()}" for name in settings.model_fields_set} == set(variables)
    return settings


@pytest.mark.parametrize("block", shown("env"))
def test_settings_are_ones_that_a_process_takes(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = environment_of(block.code)
    settings = read_as_settings(variables, monkeypatch)
    assert len(settings.redis_sentinel_nodes) == 3 * settings.redis_use_sentinel
    assert (settings.redis_url or "").count(",") == 2 * settings.redis_use_cluster


def drain_time(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> float:
    assert "RELIER_GRACEFUL_SHUTDOWN_TIMEOUT" in variables
    return read_as_settings(variables, monkeypatch).graceful_shutdown_timeout


def unit(text: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser["Service"]


@pytest.mark.parametrize("block", shown("ini"))
def test_a_unit_is_that_of_deploy_in_short(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    told = unit(block.code)
    shipped = unit((ROOT / "deploy" / "systemd" / "relier-worker.service").read_text())
    assert set(told) <= set(shipped)
    assert resolve(shlex.split(told["ExecStart"])) == resolve(shlex.split(shipped["ExecStart"])) == "worker start"
    assert [told[key] for key in ("KillMode", "Restart")] == [shipped[key] for key in ("KillMode", "Restart")]
    timeout = drain_time(environment_of(told["Environment"]), monkeypatch)
    assert float(told["TimeoutStopSec"]) >= timeout + SPARE


@pytest.mark.parametrize("block", shown("yaml"))
def test_a_pod_is_that_of_deploy_in_short(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    told = yaml.safe_load(block.code)["spec"]
    manifests = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "worker.yaml").read_text())
    deployment = copy.deepcopy(next(each for each in manifests if each["kind"] == "Deployment"))
    pod = deployment["spec"]["template"]["spec"]
    (container,), (shipped,) = told["containers"], pod["containers"]
    assert set(told) <= set(pod)
    assert set(container) <= {*shipped, "env"}
    assert container["name"] == shipped["name"]
    assert resolve(container["command"]) == resolve(shipped["command"]) == "worker start"
    timeout = drain_time({each["name"]: each["value"] for each in container["env"]}, monkeypatch)
    assert told["terminationGracePeriodSeconds"] >= timeout + SPARE
    deployment["spec"]["template"]["spec"] = {**pod, **told, "containers": [{**shipped, **container}]}
    jsonschema.Draft202012Validator(KUBERNETES["Deployment"]).validate(deployment)


@pytest.mark.parametrize("block", shown("conf"))
def test_redis_takes_lines_of_its_configuration_and_the_shipped_file_has_them(
    block: Block, private_server: PrivateServers
) -> None:
    lines = [line.split(maxsplit=1) for line in block.code.splitlines() if line and not line.startswith("#")]
    told: dict[str, str] = dict(lines)
    with private_server("redis", **told).client(decode_responses=True) as client:
        assert {name: client.config_get(name)[name] for name in told} == told
    shipped = (ROOT / "redis" / "redis.conf").read_text()
    for name, value in told.items():  # Some of them as a comment, for those who have replicas.
        assert re.search(rf"^(#\s+)?{re.escape(name)}\s+{re.escape(value)}$", shipped, re.MULTILINE), name

from __future__ import annotations

import json
from pathlib import Path

import pytest

import relier
from tests.processes import rl


def test_the_version_is_told(tmp_path: Path) -> None:
    assert rl(tmp_path, "--version").stdout == f"rl {relier.__version__}\n"


@pytest.mark.parametrize(
    "misuse", [["no-such"], ["tasks", "list", "--state", "lost"], ["tasks", "list", "--limit", "0"], ["dlq", "inspect"]]
)
def test_misuse_exits_2(tmp_path: Path, misuse: list[str]) -> None:
    done = rl(tmp_path, *misuse)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_unreachable_redis_is_one_line_without_the_password(tmp_path: Path) -> None:
    done = rl(tmp_path, "tasks", "list", redis_url="redis://:s3cr3t@127.0.0.1:1/0")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Relier cannot reach Redis (redis://:***@127.0.0.1:1/0). ")


def test_a_bad_setting_is_one_line(tmp_path: Path) -> None:
    done = rl(tmp_path, "tasks", "list", heartbeat_ttl="soon")
    assert done.returncode == 1
    assert done.stderr == "RELIER_HEARTBEAT_TTL='soon': expected a number of seconds from 0.2 to 3600.\n"


def test_the_settings_are_shown_without_secrets(tmp_path: Path) -> None:
    given = {
        "redis_url": "redis://user:s3cr3t@example.org:6379/2",
        "redis_password": "s3cr3t",
        "signing_keys": "k1:s3cr3t",
        "queues": "a,b",
        "redis_sentinel_nodes": "one:26379,two:26379",
    }
    done = rl(tmp_path, "config", "show", **given)

    lines = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert "s3cr3t" not in done.stdout + done.stderr
    assert lines["RELIER_REDIS_URL"] == "redis://user:***@example.org:6379/2"
    assert lines["RELIER_REDIS_PASSWORD"] == "***"
    assert lines["RELIER_QUEUES"] == "a,b"
    assert lines["RELIER_REDIS_SENTINEL_NODES"] == "one:26379,two:26379"
    assert lines["RELIER_RESURRECTION_ENABLED"] == "true"
    assert lines["RELIER_SIGNING_REQUIRED"] == "true"


def test_a_command_logs_for_people_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    told = rl(tmp_path, "config", "show", no_such="1")
    assert "Unknown variable RELIER_NO_SUCH is ignored" in told.stderr
    assert "{" not in told.stderr and "\x1b" not in told.stderr

    as_json = rl(tmp_path, "config", "show", no_such="1", log_format="json")
    (line,) = as_json.stderr.splitlines()
    assert json.loads(line)["logger"] == "relier.settings"

    assert rl(tmp_path, "config", "show", no_such="1", log_level="error").stderr == ""

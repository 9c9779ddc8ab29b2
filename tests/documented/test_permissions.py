"""The permissions that the page on RabbitMQ gives a user are enough, and those of nobody else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import sources
from tests.conftest import skip
from tests.documented.pages import ROOT, blocks
from tests.processes import Started, actors, rl, run
from tests.servers import RabbitmqServer
from tests.waiting import wait_until

_PUSH = "import some_actors; some_actors.sleep.push('ran', 0)"


def documented_permissions(folder: Path) -> list[str]:
    """Run the block with a `rabbitmqctl` that writes down what it is asked; returns configure, write and read."""
    (block,) = (b for b in blocks(ROOT / "docs" / "rabbitmq.md", "sh") if "set_permissions" in b.code)
    program = folder / "rabbitmqctl"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environ = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", block.code], env=environ, capture_output=True, text=True, check=True)
    told = done.stdout.splitlines()
    assert told[:4] == ["set_permissions", "-p", "my_vhost", "relier"]
    return told[4:]


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_the_documented_permissions_are_enough(
    rabbitmq: RabbitmqServer, vhost: str, store_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    evaluate: Any = getattr(rabbitmq, "evaluate", None)
    if evaluate is None:
        skip(request, sources.Unavailable("rabbitmq", "needs a server whose users a test may change"))
    name = vhost.rpartition("/")[2]
    texts = ", ".join('<<"' + part.replace("\\", "\\\\") + '">>' for part in documented_permissions(tmp_path))
    evaluate(
        'begin rabbit_auth_backend_internal:add_user(<<"relier">>, <<"secret">>, <<"tests">>), '
        f'rabbit_auth_backend_internal:set_permissions(<<"relier">>, <<"{name}">>, {texts}, <<"tests">>), true end'
    )
    try:
        at = urlsplit(vhost)
        settings: dict[str, str | None] = {
            "redis_url": store_url,
            "broker_url": at._replace(netloc=f"relier:secret@{at.hostname}:{at.port}").geturl(),
        }
        actors(tmp_path)
        with Started(tmp_path, "dramatiq", "relier.workers", "some_actors", "-p", "1", **settings) as worker:
            (tmp_path / "push.py").write_text(_PUSH)
            pushed = run(tmp_path, "push", **settings)
            assert pushed.returncode == 0, pushed.stderr
            wait_until((tmp_path / "ran").exists, 60, f"the task: {worker.output[-2000:]}")
        assert rl(tmp_path, "queue", "list", **settings).returncode == 0
    finally:
        evaluate('begin rabbit_auth_backend_internal:delete_user(<<"relier">>, <<"tests">>), true end')

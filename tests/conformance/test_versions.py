"""Payload versions: older ones are migrated, newer ones wait for newer workers, and a deploy may be done one by one."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from dramatiq import Message

from relier.envelope import Stamp, keeping_stamps, stamped
from relier.store import Sending, shard_of
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import FOREIGN, TOPOLOGIES, Topology, where
from tests.integration.harness import Harness, Process
from tests.versions.deploy import RollingDeploy
from tests.versions.environments import APPLICATION, Release, install


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Release]:
    """Both releases of the shop, installed."""
    folder = tmp_path_factory.mktemp("releases")
    return {number: install(number, folder / str(number)) for number in (1, 2)}


def send(fleet: Harness, actor: str, version: int, *args: Any, **kwargs: Any) -> str:
    """Send a task as a producer would whose code has this version of the actor; returns its id."""
    message: Message[Any] = Message("default", actor, args, kwargs, {})
    task = message.message_id
    with keeping_stamps():
        fleet.broker.enqueue(stamped(message, Stamp(task, shard_of(task), payload_version=version)))
    return task


def start(fleet: Harness, release: Release, **options: Any) -> Process:
    modules = f"{fleet.actor_module},{APPLICATION}"  # Where the broker is somebody else's, the first one sets it.
    worker = fleet.worker(python=release.python, actors=modules, **options)
    worker.wait_ready()
    return worker


def places(fleet: Harness, task: str) -> list[tuple[int, Any]]:
    """Return by which release a task was carried out, and where its order went."""
    return [(e.detail["release"], e.detail.get("address") or e.detail["to"]) for e in fleet.effects(task=task)]


@where()
def test_older_payloads_are_migrated_and_newer_ones_wait_for_a_newer_worker(
    fleet: Harness, releases: dict[int, Release]
) -> None:
    address = {"street": "S", "city": "C"}
    old = start(fleet, releases[1])
    early = send(fleet, "ship", 3, 1, address=address, express=True)
    fleet.wait(lambda: (r := fleet.record(early)) is not None and r.reason == "newer version", what="its being held")

    start(fleet, releases[2], newer_version_grace=1)
    fleet.wait(lambda: fleet.effects(task=early), what="the run of what was early")
    old.stop()
    older = send(fleet, "ship", 1, 2, "S", city="C")
    mail = send(fleet, "mail", 1, 4, "me")
    broken = send(fleet, "ship", 1, 5, "nowhere")
    future = send(fleet, "ship", 4, 6)

    counters = fleet.settle(5)
    assert places(fleet, early) == places(fleet, older) == [(2, address)]
    assert places(fleet, mail) == [(2, ["me"])]
    assert fleet.effects(task=broken) == fleet.effects(task=future) == []
    assert fleet.dead_ones() == ["SchemaMigrationError", "SchemaMigrationError"]
    assert (counters["completed"], counters["dead"]) == (3, 2)
    letter = fleet.record(future)
    assert letter is not None
    assert (letter.attempt, letter.crashes, letter.runs) == (0, 0, ())


@pytest.mark.slow
@pytest.mark.timeout(600)
@where((), never=FOREIGN)
def test_a_rolling_deploy_loses_nothing_and_runs_nothing_with_the_wrong_shape(
    fleets: Fleets, releases: dict[int, Release]
) -> None:
    deploy = RollingDeploy(fleets(), releases[1], releases[2])
    counters = deploy.run()
    assert deploy.killed == 6
    assert counters["declined"] > 0
    assert counters["crashes"] > 0


@where(("embedded",), never=FOREIGN)
def test_a_small_rolling_deploy_with_a_kill(fleets: Fleets, releases: dict[int, Release]) -> None:
    deploy = RollingDeploy(fleets(), releases[1], releases[2], workers=2, kills=1, rounds=0)
    deploy.run()
    assert deploy.killed == 1


@where()
def test_a_deploy_is_checked_in_the_environment_of_the_new_release(
    fleet: Harness, releases: dict[int, Release], topology: Topology
) -> None:
    readable = topology is TOPOLOGIES["embedded"]
    send(fleet, "ship", 1, 1, "S")
    send(fleet, "ship", 3, 2, address={}, express=True)
    fleet.store.tasks.schedule(Sending("later", 0, "default", "mail", b"{}", payload_version=2), 60)
    fleet.store.fleet.register("w", {"queues": ["default"], "actors": "d"}, {"ship": 3, "mail": 2})

    forward, code = check_deploy(fleet, releases[2])
    assert (code, forward["ok"], forward["possible"], forward["unusable_migrations"]) == (0, True, [], [])
    rows = {(row["actor"], row["version"]): row for row in forward["work"]}
    assert (rows["mail", 2]["scheduled"], rows["mail", 2]["path"]) == (1, "as it is")
    if readable:
        assert (rows["ship", 1]["queued"], rows["ship", 1]["path"]) == (1, "migrated to 3")
    assert forward["unread"] == ({} if readable else {"default": 2})

    back, code = check_deploy(fleet, releases[1])
    assert (code, back["ok"]) == (1, False)
    lost = {(row["actor"], row["version"]): row["obstacle"] for row in back["work"] if row["path"] is None}
    assert lost["mail", 2] == "newer than this code, which has version 1"
    assert (("ship", 3) in lost) == readable
    assert [(kind["actor"], kind["version"]) for kind in back["possible"]] == (
        [] if readable else [("mail", 2), ("ship", 3)]
    )


def check_deploy(fleet: Harness, release: Release) -> tuple[dict[str, Any], int]:
    """Run `rl config check-deploy` where a release is installed; returns what it printed, and its exit code."""
    rl = [release.python, "-m", "relier_cli.app", "config", "check-deploy", APPLICATION, "--json"]
    environ = {**fleet.environment(), "RELIER_ACTORS": ""}
    done = subprocess.run(rl, env=environ, cwd=fleet.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode

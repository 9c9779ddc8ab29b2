"""`dramatiq relier.workers` and `rl run-resurrector` refuse what would lose tasks or do nothing, in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relier.boot import IMPORT_FAILED, REFUSED
from relier.settings import Settings
from relier.store import Store
from tests.conftest import PrivateServers
from tests.processes import ACTORS, Started, actors, alive, environment, rl, run
from tests.waiting import wait_until

SECRET = "s3cr3t-pa55"

#: A port that nobody listens on: the kernel gives no program port 1 of a test machine.
NOBODY = f"redis://user:{SECRET}@127.0.0.1:1/0"


def workers(folder: Path, *flags: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    variables.setdefault("state_dir", str(folder / "state"))
    return run(folder, "dramatiq", "relier.workers", *flags, **variables)


def resurrector(folder: Path, **variables: str | None) -> subprocess.CompletedProcess[str]:
    variables.setdefault("state_dir", str(folder / "state"))
    return rl(folder, "run-resurrector", **variables)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what was said, without Dramatiq's own log lines; checks that no secret and no traceback is in it."""
    text = done.stdout + done.stderr
    assert SECRET not in text
    assert "Traceback" not in text
    assert done.returncode != 0
    return [line for line in text.splitlines() if "[dramatiq." not in line and '"dramatiq.' not in line]


def test_a_worker_without_actors_is_refused(tmp_path: Path) -> None:
    done = workers(tmp_path, "-p", "1")

    assert len(said(done)) == 1
    assert said(done)[0].startswith("Relier found no actors. Refusing to start.")
    assert "RELIER_ACTORS" in said(done)[0]
    assert done.returncode == REFUSED


def test_of_several_processes_that_are_refused_one_says_why(tmp_path: Path) -> None:
    assert len(said(workers(tmp_path, "-p", "3"))) == 1


@pytest.mark.parametrize("flags", [["-Q", "nope"], ["-Q", "default", "nope"]])
def test_a_queue_that_nobody_declared_is_refused(tmp_path: Path, flags: list[str]) -> None:
    lines = said(workers(tmp_path, actors(tmp_path), "-p", "1", *flags))

    assert len(lines) == 1
    assert lines[0].startswith("Nobody declared the queue 'nope' of -Q. Refusing to start.")
    assert "default, low_priority" in lines[0]


def test_queues_joined_by_a_comma_are_refused(tmp_path: Path) -> None:
    lines = said(workers(tmp_path, actors(tmp_path), "-p", "1", "-Q", "default,low_priority"))

    assert lines[0].startswith("Nobody declared the queue 'default,low_priority' of -Q.")
    assert "separated by blanks" in lines[0]


def test_a_module_swallowed_by_the_queues_is_refused(tmp_path: Path) -> None:
    alone = said(workers(tmp_path, "-p", "1", "-Q", "default", actors(tmp_path)))
    beside = said(workers(tmp_path, "-p", "1", "-Q", "default", "some_actors", actors="some_actors"))

    assert "write -Q last" in alone[0]
    assert beside[0].startswith("Nobody declared the queue 'some_actors' of -Q.")
    assert len(alone) == len(beside) == 1


def test_an_unreachable_redis_is_refused(tmp_path: Path) -> None:
    expected = ["Relier cannot reach Redis (redis://user:***@127.0.0.1:1/0). Refusing to start."]
    assert said(workers(tmp_path, actors(tmp_path), "-p", "1", redis_url=NOBODY)) == expected
    assert said(resurrector(tmp_path, redis_url=NOBODY)) == expected
    assert said(rl(tmp_path, "worker", "start", "--", "some_actors", redis_url=NOBODY)) == expected


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_an_evicting_redis_is_refused(tmp_path: Path, private_server: PrivateServers, policy: str) -> None:
    url = private_server(maxmemory_policy=policy).url
    expected = [f"Relier requires Redis maxmemory-policy='noeviction', but got '{policy}'."]
    assert said(workers(tmp_path, actors(tmp_path), "-p", "1", redis_url=url)) == expected
    assert said(resurrector(tmp_path, redis_url=url)) == expected


def test_a_store_of_another_format_is_refused(tmp_path: Path, private_server: PrivateServers) -> None:
    server = private_server()
    store = Store.from_settings(Settings(redis_url=server.url))
    store.fleet.format(1, 128)
    store.close()

    for done in (
        workers(tmp_path, actors(tmp_path), "-p", "1", redis_url=server.url),
        resurrector(tmp_path, redis_url=server.url),
        rl(tmp_path, "worker", "start", "--", "some_actors", redis_url=server.url),
    ):
        (line,) = said(done)
        assert line.startswith("The store of namespace 'relier' has format 1 in 128 shards;")


def test_malformed_settings_are_refused_one_line_each(tmp_path: Path) -> None:
    url = f"redis://:{SECRET}@127.0.0.1:port/0"
    for done in (
        workers(tmp_path, actors(tmp_path), "-p", "1", redis_url=url, heartbeat_ttl="soon"),
        resurrector(tmp_path, redis_url=url, heartbeat_ttl="soon"),
    ):
        lines = said(done)
        assert lines[0].startswith("RELIER_REDIS_URL='redis://:***@127.0.0.1:port/0': the host or port is malformed")
        assert lines[1] == "RELIER_HEARTBEAT_TTL='soon': expected a number of seconds from 0.2 to 3600."
        assert len(lines) == 2


def test_a_state_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    folder = "/proc/relier"  # not even root can make a folder there
    for done in (
        workers(tmp_path, actors(tmp_path), "-p", "1", state_dir=folder),
        resurrector(tmp_path, state_dir=folder),
    ):
        (line,) = said(done)
        assert line.startswith(f"Relier cannot use its state folder '{folder}':")
        assert "RELIER_STATE_DIR" in line


def test_a_folder_of_checkpoints_that_cannot_be_made_is_refused(tmp_path: Path, private_server: PrivateServers) -> None:
    folder = "/proc/relier/checkpoints"
    chosen = {"redis_url": private_server().url, "checkpoint_backend": "filesystem", "checkpoint_dir": folder}
    for done in (workers(tmp_path, actors(tmp_path), "-p", "1", **chosen), resurrector(tmp_path, **chosen)):
        (line,) = said(done)
        assert line.startswith(f"Relier cannot use its folder of checkpoints, RELIER_CHECKPOINT_DIR ({folder}): ")
        assert "mkdir -m 700" in line


def test_a_socket_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    url = f"unix:///tmp/{'x' * 120}/redis.sock"
    for done in (workers(tmp_path, actors(tmp_path), "-p", "1", redis_url=url), resurrector(tmp_path, redis_url=url)):
        (line,) = said(done)
        assert line.startswith("RELIER_REDIS_URL=")
        assert "the socket path is 136 bytes long, the limit is 103" in line


@pytest.mark.parametrize("where", ["the command line", "RELIER_ACTORS"])
def test_a_module_that_fails_to_import_is_named_before_its_own_traceback(tmp_path: Path, where: str) -> None:
    actors(tmp_path, "import json\n\ndef stumble():\n    return 1 / 0\n\nstumble()\n", "broken")
    done = workers(tmp_path, actors="broken") if where == "RELIER_ACTORS" else workers(tmp_path, "broken")

    lines = [line for line in done.stderr.splitlines() if "[dramatiq." not in line]
    source = " (RELIER_ACTORS)" if where == "RELIER_ACTORS" else ""
    assert lines[0] == f"Relier could not import the actor module 'broken'{source}."
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[2] == f'  File "{tmp_path}/broken.py", line 6, in <module>'
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "relier/" not in done.stderr.replace(str(tmp_path), "")
    assert done.returncode == IMPORT_FAILED


def test_a_syntax_error_in_a_module_keeps_its_place(tmp_path: Path) -> None:
    actors(tmp_path, "def broken(:\n", "broken")
    done = workers(tmp_path, "broken", "-p", "1")

    assert "could not import the actor module 'broken'" in done.stderr
    assert f'File "{tmp_path}/broken.py", line 1' in done.stderr
    assert "SyntaxError" in done.stderr


def test_a_module_that_does_not_exist_is_named_in_one_line(tmp_path: Path) -> None:
    lines = said(workers(tmp_path, "nowhere.tasks", "-p", "1"))
    assert lines == ["Relier could not import the actor module 'nowhere.tasks': there is no module 'nowhere'."]


def test_a_missing_module_inside_a_users_module_is_the_modules_own_failure(tmp_path: Path) -> None:
    actors(tmp_path, "import not_installed\n", "broken")
    done = workers(tmp_path, "broken", "-p", "1")

    assert done.stderr.startswith("Relier could not import the actor module 'broken'.\nTraceback")
    assert "No module named 'not_installed'" in done.stderr


def test_a_resurrector_that_may_not_resurrect_is_refused(tmp_path: Path) -> None:
    (line,) = said(resurrector(tmp_path, resurrection_enabled="false"))
    assert line.startswith("RELIER_RESURRECTION_ENABLED is false")


def test_a_worker_ends_in_order_on_sigterm(tmp_path: Path, private_server: PrivateServers) -> None:
    server = private_server()
    store = Store.from_settings(Settings(redis_url=server.url))
    with Started(tmp_path, "dramatiq", "relier.workers", actors(tmp_path), "-p", "1", redis_url=server.url) as worker:
        wait_until(store.fleet.workers, 60, "a worker in the fleet")
        assert worker.terminate() == 0, worker.output
    assert store.fleet.workers() == {}
    store.close()


def test_a_resurrector_ends_in_order_on_sigterm(tmp_path: Path, private_server: PrivateServers) -> None:
    """An actor module that it cannot import is not its business."""
    url = private_server().url
    store = Store.from_settings(Settings(redis_url=url))
    with Started(tmp_path, "relier_cli.app", "run-resurrector", redis_url=url, actors="nowhere") as resurrecting:
        (told,) = wait_until(store.fleet.workers, 60, "the resurrector in the fleet").values()
        assert told["role"] == "resurrector"
        assert resurrecting.terminate() == 0, resurrecting.output
        assert "An actor module cannot be imported." in resurrecting.output
    assert store.fleet.workers() == {}
    store.close()


def test_a_resurrector_needs_the_modules_of_its_command_line(tmp_path: Path) -> None:
    done = rl(tmp_path, "run-resurrector", "nowhere", state_dir=str(tmp_path / "state"))
    assert done.returncode == 2
    assert said(done) == ["Relier could not import the actor module 'nowhere': there is no module 'nowhere'."]


def test_a_worker_does_not_outlive_its_main_process(tmp_path: Path, private_server: PrivateServers) -> None:
    server = private_server()
    store = Store.from_settings(Settings(redis_url=server.url))
    with Started(tmp_path, "dramatiq", "relier.workers", actors(tmp_path), "-p", "1", redis_url=server.url) as worker:
        (told,) = wait_until(store.fleet.workers, 60, "a worker in the fleet").values()
        wait_until(lambda: "ready for action" in worker.output, 60, "the end of the boot")
        os.kill(worker.process.pid, signal.SIGKILL)
        wait_until(lambda: not alive(told["pid"]), 60, "the end of the orphaned worker")
    assert store.fleet.workers() == {}  # it left in order
    store.close()


def test_a_worker_whose_main_process_dies_while_it_boots_ends_too(
    tmp_path: Path, private_server: PrivateServers
) -> None:
    booting, gate = tmp_path / "booting", tmp_path / "gate"
    slow = f"""
import os, pathlib, time
pathlib.Path({str(booting)!r}).write_text(str(os.getpid()))
while not os.path.exists({str(gate)!r}): time.sleep(0.01)
"""
    module = actors(tmp_path, slow + ACTORS)
    with Started(tmp_path, "dramatiq", "relier.workers", module, "-p", "1", redis_url=private_server().url) as worker:
        pid = int(wait_until(lambda: booting.exists() and booting.read_text(), 60, "a booting worker"))
        os.kill(worker.process.pid, signal.SIGKILL)
        gate.touch()
        wait_until(lambda: not alive(pid), 60, "the end of the orphaned worker")


def test_a_signal_that_comes_twice_at_once_is_one_wish_and_a_later_one_ends_at_once(
    tmp_path: Path, private_server: PrivateServers
) -> None:
    server = private_server()
    store = Store.from_settings(Settings(redis_url=server.url))
    started = tmp_path / "started"
    actors(tmp_path)
    (tmp_path / "push.py").write_text(f"import some_actors; some_actors.sleep.push({str(started)!r}, 120)")
    with Started(tmp_path, "dramatiq", "relier.workers", "some_actors", "-p", "1", redis_url=server.url) as worker:
        (told,) = wait_until(store.fleet.workers, 60, "a worker in the fleet").values()
        assert run(tmp_path, "push", redis_url=server.url).returncode == 0
        wait_until(started.exists, 60, "the task's start")

        os.killpg(worker.process.pid, signal.SIGTERM)  # to both processes, and the main one passes its own on
        first = time.monotonic()
        wait_until(lambda: time.monotonic() - first > 1.5, 60, "time in which the worker may end")
        assert alive(told["pid"])

        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended(10) != 0
    store.close()


SLOW_TO_TELL = """
import multiprocessing.synchronize, os, time
from dramatiq import cli
from relier import rl_actor

told = multiprocessing.synchronize.Event.set

def tell(event):
    time.sleep(1)
    told(event)
    open("told", "w").close()

multiprocessing.synchronize.Event.set = tell

@rl_actor
def look(path):
    with open(path, "x") as file:
        file.write(str(os.path.exists("told")))
"""


def test_no_task_begins_before_dramatiqs_main_process_knows_of_the_worker(
    tmp_path: Path, private_server: PrivateServers
) -> None:
    """Who is killed while it tells that takes a lock along that the main process waits for, for ever."""
    url = private_server().url
    code = "import sys; sys.path.insert(0, '.'); import some_actors; some_actors.look.push('seen')"
    name = actors(tmp_path, SLOW_TO_TELL)
    pushed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(redis_url=url), capture_output=True, check=False
    )
    assert pushed.returncode == 0, pushed.stderr
    with Started(tmp_path, "dramatiq", "relier.workers", name, "-p", "1", redis_url=url) as worker:
        wait_until(lambda: (tmp_path / "seen").exists() and (tmp_path / "seen").read_text(), 60, worker.output)
    assert (tmp_path / "seen").read_text() == "True"

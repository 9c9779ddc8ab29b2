from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from relier.embedded import ensure_server, guardian, resolve_redis_url
from relier.errors import RelierStartupError
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent

#: The promise is 2 s; the machine that runs the tests may be busy.
END_TIMEOUT = 4.0


class User:
    """A process of its own that uses the server of a state folder."""

    def __init__(self, state_dir: Path, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.embedded_user", str(state_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        self._told: dict[str, Any] | None = None

    @property
    def told(self) -> dict[str, Any]:
        return self._told or self._read()

    def ask(self, command: str) -> dict[str, Any]:
        assert self.told
        assert self.process.stdin
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout and self.process.stderr
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self._told = json.loads(line)
        assert self._told
        return self._told

    def error(self) -> str:
        _, error = self.process.communicate(timeout=100)
        assert self.process.returncode == 1
        return error

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.communicate(timeout=100)


StartUser = Callable[..., User]


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    wait_until(lambda: not processes_of(folder), END_TIMEOUT, f"the end of every process of {folder}")


@pytest.fixture
def user(state_dir: Path) -> Iterator[StartUser]:
    users: list[User] = []

    def start(folder: Path = state_dir, **env: str) -> User:
        users.append(User(folder, **env))
        return users[-1]

    yield start
    for one in users:
        if one.process.poll() is None:
            one.end()
        for pipe in (one.process.stdin, one.process.stdout, one.process.stderr):
            if pipe:
                pipe.close()


def processes_of(folder: Path) -> list[int]:
    """Return the pids of the guardians and servers of a state folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(folder) in command and b"tests.embedded_user" not in command:
            found.append(int(entry.name))
    return found


def guardian_pid(folder: Path) -> int:
    state = guardian.read_state(str(folder))
    assert state
    return state.guardian_pid


def client(told: dict[str, Any]) -> Redis:
    return Redis.from_url(told["url"], decode_responses=True)


def answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisConnectionError:
        return False


def can_share(fd: int) -> bool:
    """Tell whether a user could come now: the guardian that ends has the users' lock for itself."""
    if not guardian.try_lock(fd, fcntl.LOCK_SH):
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def wait_for_pair(folder: Path) -> None:
    """Wait until the guardians that came too late for a simultaneous start have ended."""
    wait_until(lambda: len(processes_of(folder)) == 2, what="one guardian and one server")


def wait_for_end(folder: Path) -> None:
    wait_until(lambda: not processes_of(folder), END_TIMEOUT, f"the end of every process of {folder}")


def test_the_server_keeps_its_data_on_disk_and_never_evicts(user: StartUser, state_dir: Path) -> None:
    told = user().told

    config = client(told).config_get()
    assert (config["appendonly"], config["appendfsync"]) == ("yes", "everysec")
    assert (config["maxmemory-policy"], config["port"]) == ("noeviction", "0")
    assert stat.S_IMODE((state_dir / "server.sock").stat().st_mode) == 0o700
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700


def test_processes_that_start_together_get_one_server(user: StartUser, state_dir: Path) -> None:
    users = [user() for _ in range(8)]

    assert len({one.told["server_pid"] for one in users}) == 1
    wait_for_pair(state_dir)


def test_the_server_outlives_its_starter(user: StartUser) -> None:
    starter = user()
    pid = starter.told["server_pid"]
    other = user()
    assert other.told["server_pid"] == pid

    starter.end()

    third = user()
    assert third.told["server_pid"] == pid
    assert answers(client(other.told))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_its_last_user_and_its_data_stays(
    user: StartUser, state_dir: Path, how: signal.Signals
) -> None:
    users = [user(), user()]
    client(users[0].told).set("key", "value")
    assert users[1].told

    for one in users:
        one.end(how)

    wait_for_end(state_dir)
    assert client(user().told).get("key") == "value"


def test_a_user_that_arrives_while_the_server_ends_gets_the_next_one(state_dir: Path) -> None:
    server = ensure_server(state_dir)
    Redis.from_url(server.url).set("key", "value")
    server.close()
    with (state_dir / guardian.USERS_LOCK).open() as probe:
        wait_until(lambda: not can_share(probe.fileno()), END_TIMEOUT, "the guardian's decision to end")

    server = ensure_server(state_dir)
    try:
        assert Redis.from_url(server.url).get("key") == b"value"
    finally:
        server.close()


def test_a_killed_server_comes_back_with_its_data(user: StartUser) -> None:
    told = user().told
    redis = client(told)
    redis.set("key", "value")

    os.kill(told["server_pid"], signal.SIGKILL)

    wait_until(lambda: answers(redis), what="the server started again")
    assert redis.get("key") == "value"
    assert user().told["server_pid"] != told["server_pid"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_users_replace_a_killed_guardian(user: StartUser, state_dir: Path, how: signal.Signals) -> None:
    one, two = user(), user()
    url, redis = one.told["url"], client(one.told)
    redis.set("key", "value")
    assert two.told
    wait_for_pair(state_dir)

    os.kill(guardian_pid(state_dir), how)
    wait_for_end(state_dir)

    after = [one.ask("ensure_alive"), two.ask("ensure_alive")]
    assert after[0] == after[1]
    assert after[0]["url"] == url
    assert redis.get("key") == "value"


def test_guardian_and_server_may_be_killed_together(user: StartUser, state_dir: Path) -> None:
    one = user()
    redis = client(one.told)
    redis.set("key", "value")

    for pid in (guardian_pid(state_dir), one.told["server_pid"]):
        os.kill(pid, signal.SIGKILL)

    one.ask("ensure_alive")
    assert redis.get("key") == "value"


def test_an_orphaned_server_that_hangs_is_evicted(user: StartUser, state_dir: Path) -> None:
    one = user()
    redis = client(one.told)
    redis.set("key", "value")
    orphan = one.told["server_pid"]

    os.kill(orphan, signal.SIGSTOP)
    os.kill(guardian_pid(state_dir), signal.SIGKILL)

    assert one.ask("ensure_alive")["server_pid"] != orphan
    assert redis.get("key") == "value"


def test_a_forked_child_is_a_user_of_its_own(user: StartUser, state_dir: Path) -> None:
    parent = user()
    redis = client(parent.told)
    first, second = (parent.ask("fork")["child_pid"] for _ in range(2))

    # The end of a child does not end the hold of its parent, nor the other way round.
    os.kill(first, signal.SIGKILL)
    parent.process.kill()
    parent.process.wait()  # not communicate(): the second child has the pipes
    later = user()
    assert later.told["server_pid"] == parent.told["server_pid"]
    later.end()
    assert answers(redis)

    os.kill(second, signal.SIGKILL)
    wait_for_end(state_dir)


def test_a_forked_child_survives_the_close_of_its_parent(state_dir: Path) -> None:
    server = ensure_server(state_dir)
    pid = server.pid
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)
        os._exit(0 if ensure_server(state_dir).pid == pid else 1)
    server.close()
    other = ensure_server(state_dir)
    assert other.pid == pid
    other.close()

    os.close(write)
    os.close(read)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_one_process_has_one_hold(state_dir: Path) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(ensure_server(state_dir))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    try:
        assert len(found) == 8
        assert len(set(map(id, found))) == 1
        assert resolve_redis_url(None, state_dir) == found[0].url
        wait_for_pair(state_dir)
    finally:
        found[0].close()
    with pytest.raises(RelierStartupError, match="was closed"):
        found[0].ensure_alive()


def test_a_damaged_state_file_is_written_again(user: StartUser, state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / guardian.STATE_FILE).write_bytes(b'{"socket": 5, \xff')
    told = user().told

    (state_dir / guardian.STATE_FILE).write_text("{}")

    assert user().told["server_pid"] == told["server_pid"]


def test_a_deleted_socket_is_restored(user: StartUser, state_dir: Path) -> None:
    one = user()
    redis = client(one.told)
    redis.set("key", "value")

    (state_dir / "server.sock").unlink()
    redis.connection_pool.disconnect()

    one.ask("ensure_alive")
    assert redis.get("key") == "value"


def test_a_deleted_state_folder_is_made_again(user: StartUser, state_dir: Path) -> None:
    one = user()
    before = one.told

    shutil.rmtree(state_dir)
    wait_for_end(state_dir)

    after = one.ask("ensure_alive")
    assert after["url"] == before["url"]
    assert answers(client(after))
    one.end()
    wait_for_end(state_dir)


def test_a_torn_end_of_the_data_costs_only_the_torn_write(user: StartUser, state_dir: Path) -> None:
    one = user()
    redis = client(one.told)
    redis.set("first", "value")
    redis.set("last", "value")
    one.end()
    wait_for_end(state_dir)

    (log,) = (state_dir / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 3)

    redis = client(user().told)
    assert redis.get("first") == "value"
    assert redis.get("last") is None


def test_data_that_cannot_be_read_is_an_error_with_the_server_s_words(user: StartUser, state_dir: Path) -> None:
    one = user()
    client(one.told).set("key", "value")
    one.end()
    wait_for_end(state_dir)

    (log,) = (state_dir / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"no command\r\n" + log.read_bytes())

    error = user().error()
    assert "ended with code 1 while it started" in error
    assert "Bad file format reading the append only file" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("binary", "reason"), [("/bin/false", "code 1"), ("/etc/passwd", "Permission denied")])
def test_a_binary_that_is_no_server_is_an_error(state_dir: Path, binary: str, reason: str) -> None:
    with pytest.raises(RelierStartupError, match=f"{binary} .*{reason}"):
        ensure_server(state_dir, binary=binary)


def test_a_state_folder_that_cannot_be_made_is_an_error_with_the_fix(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    for folder in (file, file / "folder"):
        with pytest.raises(RelierStartupError) as caught:
            ensure_server(folder)
        for part in (str(folder), "can write to", "RELIER_STATE_DIR", "RELIER_REDIS_URL"):
            assert part in str(caught.value)


def test_a_read_only_state_folder_is_an_error_with_the_fix() -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Nobody, if we are root: root may write everywhere.
        nobody = 65534 if os.geteuid() == 0 else os.geteuid()
        os.chown(folder, nobody, -1)
        os.chmod(folder, 0o500)
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.seteuid(nobody)
            try:
                ensure_server(Path(folder))
            except RelierStartupError as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            error_text = pipe.read()
        os.waitpid(child, 0)

    assert f"cannot use its state folder '{folder}': Permission denied" in error_text
    assert "Set RELIER_STATE_DIR" in error_text


def test_a_long_state_folder_gets_its_socket_in_a_short_private_one(user: StartUser, state_dir: Path) -> None:
    folder = state_dir / ("long" * 30)
    one, two = user(folder), user(folder)

    assert one.told["server_pid"] == two.told["server_pid"]
    redis = client(one.told)
    redis.set("key", "value")
    path = Path(redis.connection_pool.connection_kwargs["path"])
    assert len(os.fsencode(path)) < 100
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    killed = guardian_pid(folder)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in processes_of(folder), what="the end of the guardian")
    one.ask("ensure_alive")
    assert redis.get("key") == "value"

    one.end()
    two.end()
    wait_for_end(folder)
    assert not path.parent.exists()


def test_no_place_for_the_socket_is_an_error_with_the_fix(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = state_dir / ("long" * 31)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    server = ensure_server(folder)
    place = server.socket_path.parent
    server.close()
    wait_for_end(folder)

    place.touch()
    try:
        with pytest.raises(RelierStartupError, match=r"too long.*under 100.*Set RELIER_STATE_DIR to a shorter"):
            ensure_server(folder)
    finally:
        place.unlink()


def test_without_any_server_the_error_lists_the_three_ways_out(
    user: StartUser, state_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "redis-server").write_text("#!/bin/sh\necho 'Redis server v=6.0.16 sha=00000000:0'\n")
    (tmp_path / "redis-server").chmod(0o755)

    error = user(RELIER_TEST_NO_WHEEL="1", PATH=str(tmp_path)).error()

    assert "redis-server is 6.0.16: too old" in error
    for way in ("RELIER_REDIS_URL", "pip install '.[embedded]' in a checkout of Relier", "install Redis >= 7"):
        assert way in error
    assert "Traceback" not in error


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on PATH")
def test_a_server_on_the_path_takes_over_the_wheel_s_data(user: StartUser, state_dir: Path) -> None:
    one = user()
    redis = client(one.told)
    assert redis.info()["server_name"] == "valkey"
    redis.set("key", "value")
    redis.bgrewriteaof()
    wait_until(lambda: not redis.info()["aof_rewrite_in_progress"], what="the end of the rewrite")
    one.end()
    wait_for_end(state_dir)

    redis = client(user(RELIER_TEST_NO_WHEEL="1").told)
    assert redis.info().get("server_name", "redis") == "redis"
    assert redis.get("key") == "value"


def test_a_given_url_starts_nothing(state_dir: Path) -> None:
    assert resolve_redis_url("redis://example.org/0", state_dir) == "redis://example.org/0"
    assert not state_dir.exists()


def test_the_url_survives_every_character_of_a_path(state_dir: Path) -> None:
    server = ensure_server(state_dir / "a b#c?d%e é")
    try:
        assert answers(Redis.from_url(server.url))
    finally:
        server.close()

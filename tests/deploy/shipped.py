"""Redis as it is shipped: started by `redis/start.sh` with the very files beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.redis_servers import OwnRedis
from tests.servers.service import LocalProcess, NotStarted, free_port, start_on_free_ports
from tests.sources import MISSING, Unavailable
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "redis"

#: The master as sentinel.conf names it.
MASTER = "relier-master"

#: What is asked for and not needed: how often Redis writes its AOF to disk. Who may not know it assumes every second.
ASKED = "config|get"

#: Every user that has a role; `default` is off.
USERS = ("admin", "producer", "worker", "resurrector", "viewer", "operator", "replica", "sentinel", "backup")


def password(user: str) -> str:
    return f"secret-of-{user}"


def passwords() -> dict[str, str]:
    """Return the variables by which start.sh knows the passwords."""
    return {f"REDIS_PASSWORD_{user.upper()}": password(user) for user in USERS}


def _start(files: Path, what: str, folder: Path, port: int, *options: str, **variables: str) -> LocalProcess:
    """Run start.sh with the passwords in `variables`, on a port of loopback, with its files and its log in a folder."""
    environ = {**os.environ, "REDIS_RUN": str(folder), "REDIS_SECRETS": "/nonexistent", **variables}
    command = ["sh", str(files / "start.sh"), what, *options, "--port", str(port), "--bind", "127.0.0.1"]
    return LocalProcess(command, folder / "log", environ)


class ShippedRedis(OwnRedis):
    """One server; `url` is that of the administrator. Raises `Unavailable`."""

    def __init__(
        self, *options: str, passwords: Mapping[str, str] = MappingProxyType(passwords()), files: Path = FILES
    ) -> None:
        if not shutil.which("redis-server"):
            raise Unavailable("redis", MISSING["redis"])
        self._options = options
        self._files = files
        self._passwords = dict(passwords)
        super().__init__("redis/start.sh", self._start)

    def _start(self) -> None:
        self.port = free_port()
        self.url = self.url_of("admin")
        self.restart()

    def url_of(self, user: str) -> str:
        return f"redis://{user}:{self._passwords[f'REDIS_PASSWORD_{user.upper()}']}@127.0.0.1:{self.port}/0"

    def settings_of(self, user: str) -> dict[str, Any]:
        """Return what a process with the rights of a user needs to know, by names of settings."""
        return {**self.settings, "redis_url": self.url_of(user)}

    def variables_of(self, user: str) -> dict[str, str]:
        """Return the same as a process has it in its environment, by names of settings."""
        return {name: str(value) for name, value in self.settings_of(user).items()}

    def client_of(self, user: str, **options: Any) -> redis.Redis:
        return redis.Redis.from_url(self.url_of(user), retry=Retry(NoBackoff(), 0), **options)

    def _launch(self, log: Path) -> LocalProcess:
        return _start(self._files, "redis", self.folder, self.port, *self._options, **self._passwords)

    def refused(self) -> list[str]:
        """Return what the ACL refused since the last call: `user: command, object`."""
        with self.client(decode_responses=True) as client, suppress(redis.RedisError):
            found = client.execute_command("ACL LOG")
            client.execute_command("ACL LOG", "RESET")
            rows: list[dict[str, str]] = [
                dict(zip(row[::2], row[1::2], strict=True)) if isinstance(row, list) else row for row in found
            ]
            told = [f"{row['username']}: {row['context']} {row['reason']} {row['object']}" for row in rows]
            return [line for line in told if not line.endswith(ASKED)]
        return []


class ShippedSentinel:
    """A Sentinel of a master on loopback."""

    def __init__(self, master: ShippedRedis) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rl-sentinel-"))
        self._master = f"127.0.0.1 {master.port}"
        try:
            start_on_free_ports(self._start)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self.port = free_port()
        (self.folder / "sentinel.conf").unlink(missing_ok=True)
        self._process = _start(FILES, "sentinel", self.folder, self.port, **passwords(), REDIS_MASTER=self._master)
        wait_until(lambda: self._process.has_ended or self._answers(), 60, "the Sentinel's first answer")
        if self._process.has_ended:
            self._process.kill()
            raise NotStarted(f"redis/start.sh did not start it: {(self.folder / 'log').read_text()[-500:]}")

    def _answers(self) -> bool:
        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0), decode_responses=True)

    def sees(self) -> dict[str, str]:
        """Return what it knows of the master."""
        with self.client() as client:
            flat = client.execute_command("SENTINEL", "MASTER", MASTER)
        return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))

    def close(self) -> None:
        if hasattr(self, "_process"):
            self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

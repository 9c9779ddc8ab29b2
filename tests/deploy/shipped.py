"""Redis as it is shipped: started by `redis/start.sh` with the very files beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.redis_servers import RedisServer
from tests.servers.service import LocalProcess, NotStarted, free_port, start_on_free_ports
from tests.sources import MISSING, Unavailable
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "redis"

#: What is asked for and not needed: how often Redis writes its AOF to disk. Who may not know it assumes every second.
ASKED = "config|get"

#: Every user that has a role; `default` is off.
USERS = ("admin", "producer", "worker", "resurrector", "viewer", "operator", "replica", "sentinel", "backup")


def password(user: str) -> str:
    return f"secret-of-{user}"


def passwords() -> dict[str, str]:
    """Return the variables by which start.sh knows the passwords."""
    return {f"REDIS_PASSWORD_{user.upper()}": password(user) for user in USERS}


class ShippedRedis(RedisServer):
    """One server; `url` is that of the administrator. Raises `Unavailable`."""

    def __init__(self, *options: str) -> None:
        if not shutil.which("redis-server"):
            raise Unavailable("redis", MISSING["redis"])
        self.folder = Path(tempfile.mkdtemp(prefix="rl-shipped-"))
        self.description = "redis/start.sh"
        self._options = options
        try:
            start_on_free_ports(self._start)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self.port = free_port()
        self.url = self.url_of("admin")
        self.restart()

    def url_of(self, user: str) -> str:
        return f"redis://{user}:{password(user)}@127.0.0.1:{self.port}/0"

    def client_of(self, user: str, **options: Any) -> redis.Redis:
        return redis.Redis.from_url(self.url_of(user), retry=Retry(NoBackoff(), 0), **options)

    def restart(self) -> None:
        log = self.folder / "log"
        command = ["sh", str(FILES / "start.sh"), "redis", *self._options]
        command += ["--port", str(self.port), "--bind", "127.0.0.1"]
        self._process = LocalProcess(
            command, log, {**os.environ, **passwords(), "REDIS_RUN": str(self.folder), "REDIS_SECRETS": "/nonexistent"}
        )
        wait_until(lambda: self._process.has_ended or self.answers(), 60, "the server's first answer")
        if self._process.has_ended:
            self._process.kill()
            raise NotStarted(f"redis/start.sh did not start it: {log.read_text()[-500:]}")

    def kill(self) -> None:
        if hasattr(self, "_process"):
            self._process.kill()

    def stop(self) -> None:
        self._process.stop()

    def cont(self) -> None:
        self._process.cont()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

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

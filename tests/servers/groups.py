"""Several servers that are one store: a master with replicas and Sentinels, or a Redis Cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from tests.servers.redis_servers import DEFAULTS, RedisServer
from tests.servers.service import LocalProcess, NotStarted, free_port, start_on_free_ports
from tests.waiting import wait_until

#: How soon (ms) a group of the tests takes a silent server for dead.
DOWN_AFTER = 1000


class Member:
    """One server of a group, on loopback."""

    def __init__(self, binary: str, folder: Path, port: int, *options: str) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        folder.mkdir(exist_ok=True)
        self._log = folder / "log"
        config = [part for name, value in DEFAULTS.items() for part in (f"--{name}", value.strip("'"))]
        base = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._arguments = [*base, *config, *options]
        self.start()

    def start(self) -> None:
        self._process = LocalProcess(self._arguments, self._log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.has_ended

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis.from_url(self.url, **{"socket_timeout": 5, "retry": Retry(NoBackoff(), 0), **options})

    def ask(self, *command: Any) -> Any:
        with self.client(protocol=2) as client:
            return client.execute_command(*command)

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def role(self) -> str:
        """Return master or slave; '' when it does not say."""
        try:
            return str(self.replication()["role"])
        except redis.RedisError:
            return ""

    def replication(self) -> dict[str, Any]:
        """Return what it says of replication."""
        with self.client(socket_timeout=1) as client:
            told: dict[str, Any] = client.info("replication")
            return told

    def is_well(self) -> bool:
        """Whether it takes writes."""
        return bool(self.ask("SET", "{00}probe", "")) if not self._clustered else b"cluster_state:ok" in self._state()

    @property
    def _clustered(self) -> bool:
        return "--cluster-enabled" in self._arguments

    def _state(self) -> bytes:
        return bytes(self.ask("CLUSTER", "INFO"))

    def kill(self) -> None:
        """SIGKILL: what was not replicated is lost to the others."""
        self._process.kill()

    def stop(self) -> None:
        self._process.stop()

    def cont(self) -> None:
        self._process.cont()


class Group(RedisServer):
    """Servers that are one store.

    Parameters:
      binary: the server program.
      description: what it is.
    """

    def __init__(self, binary: str, description: str) -> None:
        self.binary = binary
        self.description = description
        self.folder = Path(tempfile.mkdtemp(prefix="rl-group-"))
        self.members: list[Member] = []
        try:
            start_on_free_ports(self._begin)
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self._form()

    def _form(self) -> None:
        raise NotImplementedError

    def _member(self, *options: str, port: int = 0) -> Member:
        member = Member(self.binary, self.folder / f"m{len(self.members)}", port or free_port(), *options)
        self.members.append(member)
        return member

    def _wait(self, predicate: Callable[[], Any], what: str) -> Any:
        """Wait for it, or for the end of a member: another process has taken its port."""
        found = wait_until(lambda: any(m.has_ended for m in self.members) or predicate(), 60, what)
        if ended := [member for member in self.members if member.has_ended]:
            raise NotStarted(f"{self.description} did not start: {ended[0].log[-500:]}")
        return found

    def masters(self) -> list[Member]:
        return [member for member in self.members if member.role() == "master"]

    def answers(self) -> bool:
        return all(master.answers() for master in self.masters())

    def empty(self) -> None:
        for master in self.masters():
            master.ask("FLUSHALL")

    def _end(self) -> None:
        for member in self.members:
            member.kill()
        self.members = []

    def kill(self) -> None:
        """End every member at once, but not before they have written what they acknowledged."""
        for member in self.members:
            with suppress(redis.RedisError):
                member.ask("CONFIG", "SET", "appendfsync", "always")
        for member in self.members:
            member.kill()

    def restart(self) -> None:
        """Start every member again on its data."""
        for member in self.members:
            member.start()
        wait_until(self._serves, 60, "the servers' return")

    def _serves(self) -> bool:
        try:
            masters = self.masters()
            return all(master.role() == "master" and master.is_well() for master in masters)
        except (redis.RedisError, AssertionError):
            return False

    def stop(self) -> None:
        for member in self.members:
            member.stop()

    def cont(self) -> None:
        for member in self.members:
            member.cont()

    def close(self) -> None:
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)


class SentinelGroup(Group):
    """A master, its replicas and three Sentinels."""

    def __init__(self, binary: str, description: str, replicas: int = 1, down_after: int = DOWN_AFTER) -> None:
        self.replicas = replicas
        self.down_after = down_after
        self.sentinels: list[LocalProcess] = []
        super().__init__(binary, description)

    def _form(self) -> None:
        master = self._member("--repl-diskless-sync-delay", "0")
        self._wait(master.answers, "the master")
        for _ in range(self.replicas):
            self._member("--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0")
        self._wait(lambda: self._replicated(master), "the replicas")
        self.nodes = [self._sentinel(i, master.port) for i in range(3)]
        self._wait(lambda: all(self._knows_all(port) for port in self.nodes), "the Sentinels")
        self.url = master.url

    @property
    def settings(self) -> dict[str, Any]:
        nodes = tuple(("127.0.0.1", port) for port in self.nodes)
        return {"redis_url": None, "redis_use_sentinel": True, "redis_sentinel_nodes": nodes}

    def _replicated(self, master: Member) -> bool:
        with master.client() as client:
            about = client.info("replication")
        states = [str(about.get(f"slave{i}", {})) for i in range(self.replicas)]
        return about["connected_slaves"] == self.replicas and all("online" in state for state in states)

    def _sentinel(self, number: int, master_port: int) -> int:
        port, folder = free_port(), self.folder / f"s{number}"
        folder.mkdir()
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor relier-master 127.0.0.1 {master_port} 2\n"
            f"sentinel down-after-milliseconds relier-master {self.down_after}\n"
            "sentinel failover-timeout relier-master 6000\n"
        )
        command = [self.binary, str(folder / "sentinel.conf"), "--sentinel"]
        self.sentinels.append(LocalProcess(command, folder / "log"))
        return port

    def ask_sentinel(self, *command: Any) -> Any:
        """Ask the first Sentinel that answers."""
        for port in self.nodes:
            with suppress(redis.RedisError), redis.Redis(port=port, socket_timeout=2, protocol=2) as client:
                return client.execute_command("SENTINEL", *command)
        raise redis.ConnectionError("no Sentinel answers")

    def _knows_all(self, port: int) -> bool:
        try:
            with redis.Redis(port=port, socket_timeout=2) as client:
                about = client.sentinel_master("relier-master")
        except redis.RedisError:
            return False
        return bool(about["num-other-sentinels"] == 2 and about["num-slaves"] == self.replicas)

    def master(self) -> Member:
        """Return whom the Sentinels name."""
        _, port = self.ask_sentinel("GET-MASTER-ADDR-BY-NAME", "relier-master")
        return next(member for member in self.members if member.port == int(port))

    def masters(self) -> list[Member]:
        return [self.master()]

    def _serves(self) -> bool:
        return super()._serves() and all(self._takes_for_well(port) for port in self.nodes)

    def _takes_for_well(self, port: int) -> bool:
        with redis.Redis(port=port, socket_timeout=2) as client:
            return str(client.sentinel_master("relier-master")["flags"]) == "master"

    def client(self, **options: Any) -> redis.Redis:
        return self.master().client(**{"socket_timeout": 10, **options})

    def _end(self) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
        self.sentinels = []
        super()._end()


class ClusterGroup(Group):
    """Three masters that share the slots, each with so many replicas."""

    def __init__(self, binary: str, description: str, replicas: int = 0, down_after: int = DOWN_AFTER) -> None:
        self.replicas = replicas
        self.down_after = down_after
        super().__init__(binary, description)

    def _form(self) -> None:
        for _ in range(3 * (1 + self.replicas)):
            port, bus = free_port(), free_port()
            told = {"cluster-enabled": "yes", "cluster-port": bus, "cluster-node-timeout": self.down_after}
            self._member(*(part for name, value in told.items() for part in (f"--{name}", str(value))), port=port)
            self._buses = [*getattr(self, "_buses", []), bus]
        self._wait(lambda: all(member.answers() for member in self.members), "the servers")
        heads, size = self.members[:3], -(-16384 // 3)
        buses = self._buses[-len(self.members) :]
        for i, member in enumerate(self.members):
            member.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for i, head in enumerate(heads):
            head.ask("CLUSTER", "ADDSLOTSRANGE", i * size, min((i + 1) * size, 16384) - 1)
        for member, bus in list(zip(self.members, buses, strict=True))[1:]:
            heads[0].ask("CLUSTER", "MEET", "127.0.0.1", member.port, bus)
        self._wait(lambda: all(self._knows(member) == len(self.members) for member in self.members), "the cluster")
        for i, member in enumerate(self.members[3:]):
            member.ask("CLUSTER", "REPLICATE", heads[i % 3].ask("CLUSTER", "MYID"))
        self._wait(lambda: all(self._is_well(member) for member in self.members), "the cluster's state")
        self.url = "redis://" + ",".join(f"127.0.0.1:{member.port}" for member in self.members)

    @property
    def settings(self) -> dict[str, Any]:
        return {"redis_url": self.url, "redis_use_cluster": True}

    def _knows(self, member: Member) -> int:
        return len(member.ask("CLUSTER", "NODES").split(b"\n")) - 1

    def _is_well(self, member: Member) -> bool:
        well = b"cluster_state:ok" in member.ask("CLUSTER", "INFO")
        if member not in self.members[3:]:
            return well
        with member.client() as client:
            about = client.info("replication")
        return bool(well and about["role"] == "slave" and about["master_link_status"] == "up")

    def owner(self, key: str) -> Member:
        """Return the master that has a key."""
        slot = key_slot(key.encode())
        for member in self.members:
            with suppress(redis.RedisError):
                for first, last, master, *_ in member.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(m for m in self.members if m.port == master[1])
        raise AssertionError(f"nobody has {key}")

    def masters(self) -> list[Member]:
        for member in self.members:
            with suppress(redis.RedisError):
                ports = {master[1] for _, _, master, *_ in member.ask("CLUSTER", "SLOTS")}
                return [m for m in self.members if m.port in ports]
        raise AssertionError("nobody answers")

    def client(self, **options: Any) -> redis.Redis:
        return self.owner("{00}").client(**{"socket_timeout": 10, **options})

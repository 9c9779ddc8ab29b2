"""RabbitMQ servers: Debian's package, a container, a given one.

A server takes seconds to start, a virtual host milliseconds: tests share a server and get a virtual host each.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from relier.urls import safe_url
from tests.servers.service import (
    ContainerServer,
    GivenServer,
    LocalProcess,
    NotStarted,
    Server,
    container,
    free_port,
    start_on_free_ports,
)
from tests.waiting import wait_until

RABBITMQ_URL_VARIABLE = "RELIER_TEST_RABBITMQ_URL"
RABBITMQ_MANAGEMENT_VARIABLE = "RELIER_TEST_RABBITMQ_MANAGEMENT"
RABBITMQ_IMAGE = "rabbitmq:3.13.7"

_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Queue:
    """What a server knows of one queue."""

    kind: str
    ready: int
    unacked: int
    consumers: int


class RabbitmqServer(Server):
    """A RabbitMQ server. Its `url` names the host `/`; tests use hosts of their own."""

    def answers(self) -> bool:
        address = urlsplit(self.url)
        try:
            with socket.create_connection((address.hostname, address.port or 5672), 1) as connection:
                connection.sendall(_HEADER)
                return connection.recv(1) == _METHOD_FRAME
        except OSError:
            return False

    def new_vhost(self) -> str:
        """Make an empty virtual host; returns the URL that connects to it."""
        name = f"relier-{os.getpid()}-{next(_numbers)}"
        self._add_vhost(name)
        return f"{self.url.rstrip('/')}/{name}"

    @abstractmethod
    def _add_vhost(self, name: str) -> None: ...

    @abstractmethod
    def drop_vhost(self, url: str) -> None:
        """Remove the virtual host of this URL with all in it; its connections are closed."""

    @abstractmethod
    def queues(self, url: str) -> dict[str, Queue]:
        """Return the queues of this URL's virtual host, by name."""

    @abstractmethod
    def close_connections(self, url: str, abruptly: bool = False) -> int:
        """Close every connection to this URL's virtual host; returns how many there were.

        Parameters:
          abruptly: end the sockets without the protocol's farewell, where the server is ours.
        """


def vhost_of(url: str) -> str:
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"


#: Messages of queue Q that are ready, and unacknowledged ones. A quorum queue tells of itself what is seconds old.
_COUNTS = (
    "case amqqueue:get_type(Q) of rabbit_quorum_queue -> "
    "[element(2, element(2, ra:local_query(amqqueue:get_pid(Q), F))) "
    "|| F <- [fun rabbit_fifo:query_messages_ready/1, fun rabbit_fifo:query_messages_checked_out/1]]; "
    "_ -> [N || {_, N} <- rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged])] end"
)


class _OwnRabbitmq(RabbitmqServer):
    """A server of ours, commanded in its own language."""

    @abstractmethod
    def evaluate(self, expression: str) -> Any:
        """Evaluate an Erlang expression whose value JSON can say; returns the value."""

    def _add_vhost(self, name: str) -> None:
        host, user = f'<<"{name}">>', f'<<"{urlsplit(self.url).username}">>'
        self._do(
            f'rabbit_vhost:add({host}, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
            f'{user}, {host}, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
        )

    def drop_vhost(self, url: str) -> None:
        self._do(f'rabbit_vhost:delete(<<"{vhost_of(url)}">>, <<"tests">>)')

    def _do(self, expressions: str) -> None:
        self.evaluate(f"begin {expressions}, true end")

    def queues(self, url: str) -> dict[str, Queue]:
        listed = self.evaluate(
            "[[element(4, amqqueue:get_name(Q)), amqqueue:get_type(Q), "
            "proplists:get_value(consumers, rabbit_amqqueue:info(Q, [consumers]))"
            f' | {_COUNTS}] || Q <- rabbit_amqqueue:list(<<"{vhost_of(url)}">>)]'
        )
        return {
            name: Queue(kind.removeprefix("rabbit_").removesuffix("_queue"), ready, unacked, consumers)
            for name, kind, consumers, ready, unacked in listed
        }

    def close_connections(self, url: str, abruptly: bool = False) -> int:
        end = "exit(P, kill)" if abruptly else 'rabbit_networking:close_connection(P, "closed by a test")'
        return int(
            self.evaluate(
                f"length([catch {end} || P <- rabbit_networking:local_connections(), "
                f'(catch rabbit_networking:connection_info(P, [vhost])) =:= [{{vhost, <<"{vhost_of(url)}">>}}]])'
            )
        )


class LocalRabbitmq(_OwnRabbitmq):
    """A server process of our own on loopback, with an `epmd`, a home and a node name of its own.

    Its shell reads from our pipe, so that a command takes milliseconds; `rabbitmqctl` takes a second or two.

    Parameters:
      config: further lines of `rabbitmq.conf`.
    """

    def __init__(self, launcher: str, description: str, config: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rl-rabbit-"))
        self.description = description
        self._launcher = launcher
        self._is_frozen = False
        try:
            start_on_free_ports(lambda: self._start_on(config, free_port(), free_port(), free_port()))
        except BaseException:
            self.close()
            raise

    def _start_on(self, config: Mapping[str, str], port: int, distribution_port: int, epmd_port: int) -> None:
        self._port, self._distribution_port, self._epmd_port = port, distribution_port, epmd_port
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        self._write_configuration(config)
        self.restart()

    def _write_configuration(self, config: Mapping[str, str]) -> None:
        lines = {
            "listeners.tcp.local": f"127.0.0.1:{self._port}",
            "log.console": "false",
            "disk_free_limit.absolute": "50MB",
            **config,
        }
        (self.folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "env").write_text("")

    @property
    def pid(self) -> int:
        return self._process.pid

    def restart(self) -> None:
        output = self.folder / "shell"
        output.write_bytes(b"")
        command = f'epmd -port {self._epmd_port} -address 127.0.0.1 </dev/null & exec "$0"'
        self._process = LocalProcess(
            ["/bin/sh", "-c", command, self._launcher], output, self._environment(), subprocess.PIPE
        )
        wait_until(lambda: self._process.has_ended or self.answers(), 120, "the first answer of RabbitMQ")
        if self._process.has_ended:
            self._process.kill()
            raise NotStarted(f"{self.description} did not start: {output.read_text(errors='replace')[-2000:]}")

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "RABBITMQ_NODENAME": "relier@localhost",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ALLOW_INPUT": "1",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            # Erlang's schedulers spin while they wait, unless they are told not to: the tests need the processor.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} "
            "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def evaluate(self, expression: str) -> Any:
        output = self.folder / "shell"
        before, mark = output.stat().st_size, os.urandom(6).hex()
        self._process.write(
            f'io:format("~n{mark}<~s>{mark}~n", [try rabbit_json:encode({expression}) '
            f'catch C:E -> io_lib:format("!~0p", [{{C, E}}]) end]).\n'.encode()
        )

        def answer() -> re.Match[str] | None:
            with output.open("rb") as file:
                file.seek(before)
                return re.search(rf"{mark}<(.*)>{mark}", file.read().decode(errors="replace"), re.DOTALL)

        found = wait_until(answer, 60, f"RabbitMQ's answer to {expression}")
        assert found
        text = found[1]
        if text.startswith("!"):
            raise RuntimeError(f"{expression}: {text}")
        return json.loads(text)

    def kill(self) -> None:
        """Kill it. Its metadata are flushed before, unless it is frozen.

        RabbitMQ confirms the declaration of a durable queue before its database is sure of it: killed soon after, it
        forgets the queue and all messages in it.
        """
        if not self._is_frozen and not self._process.has_ended:
            self._do("mnesia:dump_log()")
        self._process.kill()

    def stop(self) -> None:
        self._is_frozen = True
        self._process.stop()

    def cont(self) -> None:
        self._process.cont()
        self._is_frozen = False

    def close(self) -> None:
        if hasattr(self, "_process"):
            self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class ContainerRabbitmq(ContainerServer, _OwnRabbitmq):
    """A RabbitMQ in a container, commanded by its own `rabbitmqctl`, which takes a second or two."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self.description = f"container {RABBITMQ_IMAGE}"
        port = free_port()
        described = container(RABBITMQ_IMAGE).with_env("RABBITMQ_DEFAULT_USER", "relier")
        described = described.with_env("RABBITMQ_DEFAULT_PASS", "relier").with_bind_ports(5672, port)
        lines = "\n".join(f"{name} = {value}" for name, value in config.items())
        write = f"printf '%s\\n' {shlex.quote(lines)} >/etc/rabbitmq/conf.d/90-tests.conf"
        start = f"{write}; exec docker-entrypoint.sh rabbitmq-server"
        self._run(described.with_command(["sh", "-c", start]), f"amqp://relier:relier@HOST:{port}/")

    def evaluate(self, expression: str) -> Any:
        done = self._container.exec(["rabbitmqctl", "eval", f"rabbit_json:encode({expression})."])
        text = done.output.decode()
        if done.exit_code != 0:
            raise RuntimeError(f"{expression}: {text}")
        return json.loads(_unquoted(text))


def _unquoted(printed: str) -> str:
    """Return the text of a binary as Erlang prints it: `<<"…">>`, maybe in pieces over several lines."""
    pieces = re.findall(r'"((?:[^"\\]|\\.)*)"', printed)
    return re.sub(r"\\(.)", r"\1", "".join(pieces))


class GivenRabbitmq(GivenServer, RabbitmqServer):
    """The RabbitMQ at a URL that we were given, commanded by its management plugin."""

    def __init__(self, url: str) -> None:
        self.url = f"{url.rstrip('/')}/" if not urlsplit(url).path.strip("/") else url.rpartition("/")[0] + "/"
        self.description = f"{RABBITMQ_URL_VARIABLE} ({safe_url(url)})"
        self._management = os.environ.get(RABBITMQ_MANAGEMENT_VARIABLE) or f"http://{urlsplit(url).hostname}:15672"
        self._ask("GET", "overview")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        address = urlsplit(self.url)
        user = f"{unquote(address.username or 'guest')}:{unquote(address.password or 'guest')}"
        headers = {
            "Authorization": f"Basic {base64.b64encode(user.encode()).decode()}",
            "Content-Type": "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._management}/api/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.URLError as error:
            raise RuntimeError(
                f"{self.description} cannot be commanded: {request.full_url}: {error}; "
                f"{RABBITMQ_MANAGEMENT_VARIABLE} names the address of its management plugin"
            ) from error

    def _add_vhost(self, name: str) -> None:
        self._ask("PUT", f"vhosts/{name}", {})
        user = quote(unquote(urlsplit(self.url).username or "guest"), safe="")
        self._ask("PUT", f"permissions/{name}/{user}", {"configure": ".*", "write": ".*", "read": ".*"})

    def drop_vhost(self, url: str) -> None:
        self._ask("DELETE", f"vhosts/{quote(vhost_of(url), safe='')}")

    def queues(self, url: str) -> dict[str, Queue]:
        listed = self._ask("GET", f"queues/{quote(vhost_of(url), safe='')}?disable_stats=true&enable_queue_totals=true")
        return {
            queue["name"]: Queue(
                queue.get("type", "classic"),
                queue.get("messages_ready", 0),
                queue.get("messages_unacknowledged", 0),
                queue.get("consumers", 0),
            )
            for queue in listed
        }

    def close_connections(self, url: str, abruptly: bool = False) -> int:
        connections = self._ask("GET", f"vhosts/{quote(vhost_of(url), safe='')}/connections")
        for connection in connections:
            self._ask("DELETE", f"connections/{quote(connection['name'], safe='')}")
        return len(connections)


def given_rabbitmq_url() -> str:
    """Return the URL that the environment gives; '' without one."""
    return os.environ.get(RABBITMQ_URL_VARIABLE, "")


def launcher() -> tuple[str, str]:
    """Return the path and version of the package's own launcher; two empty texts without one.

    Debian's command of the same name on PATH is a wrapper that changes the user.
    """
    packaged = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    path = str(packaged) if packaged.exists() else shutil.which("rabbitmq-server")
    if not path or not shutil.which("epmd"):
        return "", ""
    version = re.search(r"rabbitmq_server-([\d.]+)", os.path.realpath(path))
    return path, version[1] if version else ""

"""What a start and `rl doctor` say of RabbitMQ."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from relier.brokers import default_broker
from relier.errors import RelierConfigError
from relier.settings import Settings
from tests.brokers.bench import Bench
from tests.brokers.conftest import Benches
from tests.processes import actors, rl
from tests.test_workers import SECRET, resurrector, said, workers


def with_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return f"amqp://{user}@{parts.hostname}:{parts.port}{parts.path}"


def test_a_server_that_answers_is_fine_and_no_queue_is_made(bench: Bench) -> None:
    (finding,) = bench.broker.inspect()

    assert finding.level == "ok"
    assert finding.message.startswith("RabbitMQ ")
    assert bench.queues() == {}


def test_an_absent_server_refuses_the_start_without_the_password(benches: Benches, rabbitmq: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can answer here
        place = f"127.0.0.1:{taken.getsockname()[1]}/tasks"
        (finding,) = benches(rabbitmq, f"amqp://me:secret@{place}").broker.inspect()

    assert finding.level == "error"
    assert finding.message == f"Relier cannot reach RabbitMQ (amqp://me:***@{place}). Refusing to start."
    assert "secret" not in finding.fix
    assert "Connection refused" in finding.fix


@pytest.mark.parametrize("wrong", ["user", "vhost"])
def test_a_refused_user_or_vhost_is_told_apart(benches: Benches, rabbitmq: Any, vhost: str, wrong: str) -> None:
    url = with_user(vhost, "nobody:secret") if wrong == "user" else f"{vhost}-missing"
    (finding,) = benches(rabbitmq, url).broker.inspect()

    assert finding.level == "error"
    assert finding.message.endswith("refuses this user or virtual host. Refusing to start.")
    assert "secret" not in finding.message + finding.fix


@pytest.mark.parametrize(("made", "wanted"), [("classic", "quorum"), ("quorum", "classic")])
def test_a_queue_of_the_other_type_is_explained(
    benches: Benches, rabbitmq: Any, vhost: str, made: str, wanted: str
) -> None:
    benches(rabbitmq, vhost, rabbitmq_queue_type=made).quick.send(1)
    other = benches(rabbitmq, vhost, rabbitmq_queue_type=wanted)

    findings = list(other.broker.inspect())

    assert [finding.level for finding in findings] == ["ok", "error"]
    assert f"of another kind than RELIER_RABBITMQ_QUEUE_TYPE={wanted} makes" in findings[1].message
    with pytest.raises(RelierConfigError, match="A queue cannot be changed"):
        other.quick.send(2)


def test_workers_resurrector_and_supervisor_refuse_to_start_in_one_line(redis_url: str, tmp_path: Path) -> None:
    settings = {"redis_url": redis_url, "broker_url": f"amqp://me:{SECRET}@127.0.0.1:1/tasks"}
    expected = ["Relier cannot reach RabbitMQ (amqp://me:***@127.0.0.1:1/tasks). Refusing to start."]

    assert said(workers(tmp_path, actors(tmp_path), "-p", "1", **settings)) == expected
    assert said(resurrector(tmp_path, **settings)) == expected
    assert said(rl(tmp_path, "worker", "start", "--", "some_actors", **settings)) == expected


def test_a_worker_refuses_queues_of_the_other_type_in_one_line(bench: Bench, redis_url: str, tmp_path: Path) -> None:
    bench.quick.send(1)
    settings = {"redis_url": redis_url, "broker_url": bench.vhost, "rabbitmq_queue_type": "quorum"}

    (line,) = said(workers(tmp_path, actors(tmp_path), "-p", "1", **settings))

    assert "has a queue 'default' of another kind than RELIER_RABBITMQ_QUEUE_TYPE=quorum makes" in line


def test_a_missing_pika_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pika", None)
    with pytest.raises(RelierConfigError, match=r"needs pika: pip install '\.\[rabbitmq\]' in a checkout"):
        default_broker(Settings(broker_url="amqp://localhost"))


def test_an_option_that_pika_does_not_know_is_explained_without_the_password() -> None:
    with pytest.raises(RelierConfigError) as caught:
        default_broker(Settings(broker_url="amqp://me:secret@localhost/?colour=blue"))

    assert "unknown to pika" in str(caught.value)
    assert "secret" not in str(caught.value)

"""An acknowledgement may wait for the store's disk without a thread of its own."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
import redis

from relier.store import Store
from relier.store.durability import Custody, Durability
from tests.waiting import wait_until


class Server:
    """Stands in for a runner and for the durability of its server."""

    def __init__(self, interval: float) -> None:
        self.seconds = interval
        self.generation = 0
        self.away = False
        self.probes = 0

    def probe(self) -> None:
        self.probes += 1
        if self.away:
            self.generation += 1
            raise redis.ConnectionError("away")

    def interval(self) -> float:
        return self.seconds

    def replicate(self) -> None:
        """It has no replicas."""


def custody_of(server: Server) -> Custody:
    return Custody(cast("Any", server), cast("Durability", server))


def test_a_pledge_is_kept_after_the_interval() -> None:
    server, answers = Server(0.1), list[tuple[bool, float]]()
    custody = custody_of(server)
    began = time.monotonic()

    custody.when_durable(custody.pledge(0), lambda kept: answers.append((kept, time.monotonic() - began)))

    wait_until(lambda: answers, 60, "the answer")
    assert answers[0][0]
    assert answers[0][1] >= 0.1


def test_many_pledges_are_answered_together() -> None:
    server, answers = Server(0.2), list[bool]()
    custody = custody_of(server)
    for _ in range(500):
        custody.when_durable(custody.pledge(0), answers.append)

    wait_until(lambda: len(answers) == 500, 60, "every answer")
    assert all(answers)
    assert server.probes < len(answers)


def test_a_server_that_was_lost_in_between_keeps_no_pledge() -> None:
    server, answers = Server(0.1), list[bool]()
    custody = custody_of(server)
    server.away = True

    custody.when_durable(custody.pledge(0), answers.append)

    wait_until(lambda: answers == [False], 60, "the answer")
    server.away = False
    custody.when_durable(custody.pledge(server.generation), answers.append)
    wait_until(lambda: answers == [False, True], 60, "the next answer")


def test_a_connection_that_was_lost_before_the_pledge_counts_too() -> None:
    server, answers = Server(0.0), list[bool]()
    custody = custody_of(server)
    server.generation = 7

    custody.when_durable(custody.pledge(6), answers.append)

    wait_until(lambda: answers == [False], 60, "the answer")


def test_one_failing_acknowledgement_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    server, answers = Server(0.0), list[bool]()
    custody = custody_of(server)

    def fail(kept: bool) -> None:
        raise RuntimeError("the broker is away")

    custody.when_durable(custody.pledge(0), fail)
    custody.when_durable(custody.pledge(0), answers.append)

    wait_until(lambda: answers == [True], 60, "the other answer")
    assert "An acknowledgement failed; its copy comes back." in caplog.text


def test_a_restarted_server_is_noticed_without_any_other_call(store: Store, client: redis.Redis) -> None:
    """The probe goes over the connection that carried the writes, so its loss shows."""
    answers: list[bool] = []
    store.runner.probe()
    pledge = store.custody.pledge(store.runner.generation)

    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    store.custody.when_durable(pledge, answers.append)

    wait_until(lambda: answers == [False], 60, "the answer")

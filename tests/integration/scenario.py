"""A mixed load with every kind of follow-up, and the account of what it must leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dramatiq
from dramatiq.results.errors import ResultFailure

from tests.integration.harness import Harness

#: Dramatiq's compositions are not typed.
pipeline: Any = dramatiq.pipeline
group: Any = dramatiq.group


@dataclass
class Scenario:
    """Pipelines, groups, callbacks, results, retries and a final failure, pushed at once."""

    fleet: Harness
    pushed: list[str] = field(default_factory=list)
    expected: int = 0

    def push(self) -> None:
        a, broker = self.fleet.actors, self.fleet.broker
        self.plain = [a.quick.push(i).id for i in range(4)]
        self.pipeline = pipeline([a.add.message(1, 2), a.aadd.message(3), a.told.message()], broker=broker)
        self.pipeline.run()
        self.group = group([a.add.message(i, i) for i in range(3)], broker=broker)
        self.group.add_completion_callback(a.told.message("group"))
        self.group.run()
        self.called = a.quick.send_with_options(args=(9,), on_success="told")
        self.result = a.aadd.message(20, 22)
        broker.enqueue(self.result)
        self.flaky = a.flaky.push(1)
        self.dead = a.broken.message_with_options(args=("dead",), on_failure="told")
        broker.enqueue(self.dead)
        self.late = a.quick.send_with_options(args=(5,), delay=50)
        # plain, pipeline, group + callback, success + callback, result, flaky, dead + callback, late
        self.expected = 4 + 3 + 3 + 1 + 2 + 1 + 1 + 2 + 1

    def settle(self, timeout: float = 60.0) -> dict[str, int]:
        counters = self.fleet.settle(self.expected, timeout)
        assert counters["completed"] == self.expected - 1, self.fleet.report()
        assert counters["dead"] == 1, self.fleet.report()
        self._check_follow_ups()
        self._check_results()
        return counters

    def _check_follow_ups(self) -> None:
        """Each follow-up is one task; the account above says that each completed once."""
        told = {effect.task: effect.detail for effect in self.fleet.effects("told")}
        kinds = sorted(_kind(detail) for detail in told.values())
        assert kinds == ["dead", "group", "piped", "success"], self.fleet.report()

    def _check_results(self) -> None:
        backend = self.fleet.broker.get_results_backend()
        assert self.result.get_result(backend=backend) == 42
        assert list(self.group.get_results()) == [0, 2, 4]
        assert self.pipeline.messages[1].get_result(backend=backend) == 6
        try:
            self.dead.get_result(backend=backend)
        except ResultFailure as failure:
            assert "dead" in str(failure)
        else:
            raise AssertionError("a dead task has no result")


def _kind(detail: list[Any]) -> str:
    if detail == ["group"]:
        return "group"
    if detail == [6]:
        return "piped"
    return "success" if detail[1] is None else str(detail[1]["message"])

"""Purge marks: what was enqueued before one never runs; what runs, was released or came later is left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from relier.store import KeyTerms, Verdict
from relier.store.purging import KEPT, MOST, Copy, Judgement, Purge, TooManyMarksError, concerning
from tests.store.desk import NOW, SECOND, SHARD
from tests.store.desk import Desk as Plain

EVERYTHING = (concerning("", ""),)
START = NOW / SECOND


class Desk(Plain):
    """With a purge under the same clock."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.purges = self.store.purges
        self._tick()

    def _tick(self) -> None:
        self.purges.clock = self.tasks.clock

    def wait(self, seconds: float) -> int:
        super().wait(seconds)
        self._tick()
        assert self.tasks.clock is not None
        return self.tasks.clock

    def now(self) -> float:
        return (self.tasks.clock or 0) / SECOND

    def purge(self, *concerns: str, age: float = 0.0) -> Purge:
        """Set a mark, and wait until its time has passed."""
        at = int(self.now() - age) + (0 if age else 2)
        purge = Purge(concerns or EVERYTHING, at, self.now(), "me")
        self.purges.mark(purge)
        if not age:
            self.wait(3)
        return purge

    def waiting(self, purge: Purge, *, only_tell: bool = False) -> int:
        return sum(map(len, self.purges.waiting(purge, only_tell=only_tell)))

    def copies(
        self, purge: Purge, *tasks: str, fence: int = 0, created: float = START, actor: str = "act"
    ) -> list[str]:
        copies = [Copy(task, SHARD, fence, "default", actor, created) for task in tasks]
        return [str(found) for found in self.purges.copies(purge, copies)]

    def deliver(self, task: str = "t", created: float = START, seen: int = 0) -> Verdict:
        return self.claim("w2", task, seen, created=created).verdict


@pytest.fixture
def desk(client: redis.Redis) -> Iterator[Desk]:
    from tests.store.conftest import WORKERS
    from tests.store.look import inconsistencies, look

    desk = Desk(client)
    yield desk
    assert not inconsistencies(look(desk.store, [SHARD], WORKERS))
    desk.store.runner.close()


def purged(desk: Desk) -> dict[str, int]:
    return {name: desk.count(name) for name in ("accepted", "discarded", "discarded:purged")}


# -- a copy that comes after the mark -------------------------------------------------------------------------------


def test_a_copy_from_before_the_mark_ends_as_purged_and_never_runs(desk: Desk) -> None:
    desk.purge()

    assert desk.deliver() is Verdict.SETTLED

    record = desk.record()
    assert (record.state, record.outcome, record.reason) == ("e", "discarded", "purged")
    assert purged(desk) == {"accepted": 1, "discarded": 1, "discarded:purged": 1}
    assert desk.deliver() is Verdict.SETTLED  # another copy of it
    assert purged(desk)["discarded:purged"] == 1


def test_a_copy_from_after_the_mark_runs(desk: Desk) -> None:
    desk.purge()

    assert desk.deliver(created=desk.now()) is Verdict.GRANTED


def test_a_copy_that_does_not_say_how_old_it_is_runs_unless_its_record_tells(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending("known"), 0)
    desk.purge()

    assert desk.deliver("unknown", created=0) is Verdict.GRANTED
    assert desk.deliver("known", created=0, seen=desk.published("known")) is Verdict.SETTLED


@pytest.mark.parametrize(
    ("queue", "actor", "verdict"),
    [
        ("", "", Verdict.SETTLED),
        ("default", "", Verdict.SETTLED),
        ("", "act", Verdict.SETTLED),
        ("default", "act", Verdict.SETTLED),
        ("other", "", Verdict.GRANTED),
        ("", "other", Verdict.GRANTED),
        ("default", "other", Verdict.GRANTED),
        ("other", "act", Verdict.GRANTED),
    ],
)
def test_a_mark_concerns_a_queue_an_actor_or_both(desk: Desk, queue: str, actor: str, verdict: Verdict) -> None:
    desk.purge(concerning(queue, actor))

    assert desk.deliver() is verdict


def test_a_purge_by_age_leaves_what_is_younger(desk: Desk) -> None:
    desk.purge(age=3600)

    assert desk.deliver("old", created=desk.now() - 3601) is Verdict.SETTLED
    assert desk.deliver("young", created=desk.now() - 3599) is Verdict.GRANTED


def test_an_older_mark_does_not_replace_a_newer_one(desk: Desk) -> None:
    desk.purge()
    desk.purge(age=3600)

    assert desk.deliver() is Verdict.SETTLED


def test_a_mark_is_forgotten_when_no_copy_can_wait_any_more(desk: Desk) -> None:
    desk.purge()
    key = desk.store.keys.marks(SHARD)

    assert KEPT - 60 < desk.client.ttl(key) <= KEPT

    desk.wait(KEPT + 1)
    desk.purge(concerning("q2", ""))
    assert desk.purges.marks() == 1


def test_more_marks_than_claims_shall_ask_for_are_refused_and_change_nothing(desk: Desk) -> None:
    desk.purge(*(concerning(f"q{i}", "") for i in range(MOST)))

    with pytest.raises(TooManyMarksError):
        desk.purge(concerning("default", ""))

    assert desk.deliver() is Verdict.GRANTED


# -- what runs ------------------------------------------------------------------------------------------------------


def test_a_running_task_goes_on(desk: Desk) -> None:
    fence = desk.run()
    purge = desk.purge()

    assert desk.waiting(purge) == 0
    assert desk.copies(purge, "t") == ["kept"]
    assert desk.commit(fence)
    assert purged(desk)["discarded"] == 0


@pytest.mark.parametrize("how", ["retry", "crash", "hand-over"])
def test_what_comes_back_from_a_run_is_purged(desk: Desk, how: str) -> None:
    fence = desk.run(created=START)
    desk.purge()

    if how == "retry":
        assert desk.fail(fence, retry=True, delay=5) == "retry"
        desk.wait(6)
    elif how == "crash":
        desk.bury()
    else:
        assert desk.tasks.hand_over("w1", desk.sending(), fence, "shutdown")

    assert desk.deliver(seen=desk.published()) is Verdict.SETTLED
    assert desk.record().reason == "purged"


def test_a_run_of_a_dead_worker_is_not_taken_over(desk: Desk) -> None:
    desk.run(created=START)
    desk.purge()
    desk.client.zadd(desk.store.keys.shard(SHARD, "")[3], {"w1": 1})  # buried, and not yet what it ran

    assert desk.deliver() is Verdict.SETTLED

    assert desk.record().reason == "purged"
    assert purged(desk) == {"accepted": 1, "discarded": 1, "discarded:purged": 1}
    assert desk.bury().put_back == 0


# -- what waits in the store ----------------------------------------------------------------------------------------


def test_what_waits_in_the_store_is_purged(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending("delayed"), 3600)
    desk.tasks.schedule(desk.sending("held"), 0)
    desk.tasks.hold("held", "hold", "me", SHARD)
    desk.fail(desk.run(task="retrying"), task="retrying", retry=True)
    purge = desk.purge()
    desk.tasks.schedule(desk.sending("new"), 3600)

    assert desk.waiting(purge, only_tell=True) == 3
    assert purged(desk)["discarded"] == 0
    assert desk.waiting(purge) == 3

    assert [desk.state(task) for task in ("delayed", "held", "retrying", "new")] == ["e", "e", "e", "s"]
    assert purged(desk)["discarded:purged"] == 3
    assert desk.waiting(purge) == 0


def test_thousands_that_wait_are_purged_page_by_page(desk: Desk) -> None:
    for i in range(1000):
        desk.tasks.schedule(desk.sending(f"t{i}"), 60)

    assert desk.waiting(desk.purge()) == 1000

    assert purged(desk)["discarded:purged"] == 1000
    assert desk.store.live()["due"] == 0


def test_a_purged_owner_leaves_its_key_to_a_waiter_that_is_newer(desk: Desk) -> None:
    key = KeyTerms("k", "wait", False, False, 3600.0, 120.0, 3600.0, 3600.0)
    desk.fail(desk.run(task="old", key=key), task="old", retry=True)
    purge = desk.purge()
    assert desk.claim("w2", "new", key=key, created=desk.now()).verdict is Verdict.HELD

    assert desk.waiting(purge) == 1

    assert desk.deliver("new", created=desk.now(), seen=desk.published("new")) is Verdict.GRANTED


# -- dead letters ---------------------------------------------------------------------------------------------------


def test_a_dead_letter_stays_and_its_release_is_exempt(desk: Desk) -> None:
    desk.fail(desk.run(created=START))
    purge = desk.purge()
    assert desk.waiting(purge) == 0

    assert desk.tasks.hold("t", "release", "me", SHARD)[0] == "released"

    assert desk.waiting(purge) == 0
    assert desk.copies(purge, "t", fence=desk.published()) == ["kept"]
    claim = desk.claim("w2", "t", desk.record().fence, created=START)
    assert claim.verdict is Verdict.GRANTED
    desk.fail(claim.fence, "w2", retry=True)
    desk.wait(6)
    assert desk.deliver(seen=desk.published()) is Verdict.GRANTED  # its retry, too


def test_a_release_between_the_writing_of_a_mark_and_its_time_is_exempt(desk: Desk) -> None:
    desk.fail(desk.run(created=START))
    purge = Purge(EVERYTHING, int(desk.now()) + 2, desk.now(), "me")
    desk.purges.mark(purge)

    desk.tasks.hold("t", "release", "me", SHARD)

    assert desk.waiting(purge) == 0
    assert desk.deliver(seen=desk.published()) is Verdict.GRANTED


def test_a_refused_message_that_was_released_is_exempt_too(desk: Desk) -> None:
    purge = desk.purge()

    assert desk.tasks.schedule(desk.sending(), 0, released=True)

    assert desk.waiting(purge) == 0
    assert desk.deliver(seen=desk.published()) is Verdict.GRANTED


def test_a_release_is_not_exempt_from_a_later_purge(desk: Desk) -> None:
    desk.fail(desk.run(created=START))
    desk.tasks.hold("t", "release", "me", SHARD)
    desk.wait(1)

    assert desk.waiting(desk.purge()) == 1


# -- copies that were found in a broker -----------------------------------------------------------------------------


def test_a_copy_that_was_found_in_the_broker_ends_its_task_once(desk: Desk) -> None:
    purge = desk.purge()

    assert desk.copies(purge, "a", "b", "a") == ["purged", "purged", "ended"]
    assert desk.copies(purge, "a", "b") == ["ended", "ended"]

    assert purged(desk) == {"accepted": 2, "discarded": 2, "discarded:purged": 2}
    assert desk.store.known("a", SHARD).status == "discarded"
    assert desk.deliver("a") is Verdict.SETTLED


def test_a_newer_copy_and_one_of_somebody_else_stay_in_the_broker(desk: Desk) -> None:
    purge = desk.purge(concerning("", "act"))

    assert desk.copies(purge, "new", created=desk.now()) == ["kept"]
    assert desk.copies(purge, "other", actor="other") == ["kept"]
    assert purged(desk)["accepted"] == 0


def test_a_copy_of_a_task_that_has_ended_is_of_no_use(desk: Desk) -> None:
    desk.commit(desk.run())

    assert desk.copies(desk.purge(), "t") == [Judgement.ENDED]
    assert purged(desk)["discarded"] == 0


def test_a_copy_of_a_task_that_is_only_marked_as_cancelled_makes_an_end_of_that(desk: Desk) -> None:
    assert desk.tasks.hold("t", "cancel", "somebody", SHARD)[0] == "marked"
    purge = desk.purge()
    assert purged(desk)["accepted"] == 0

    assert desk.copies(purge, "t", "t") == [Judgement.ENDED] * 2

    assert purged(desk) == {"accepted": 1, "discarded": 1, "discarded:purged": 0}
    assert desk.count("discarded:cancelled") == 1


def test_telling_what_a_purge_would_do_changes_nothing(desk: Desk) -> None:
    purge = Purge(EVERYTHING, int(desk.now()) + 2, desk.now(), "me")
    copies = [Copy("t", SHARD, 0, "default", "act", START)]

    assert desk.purges.copies(purge, copies, only_tell=True) == [Judgement.PURGED]

    assert (desk.find(), purged(desk)["accepted"]) == (None, 0)


# -- clocks ---------------------------------------------------------------------------------------------------------


def test_a_server_whose_clock_is_set_back_behind_a_mark_gives_the_mark_up(desk: Desk) -> None:
    desk.purge()
    desk.wait(-3600)
    made = desk.now()

    assert desk.deliver("before anybody sweeps", created=made) is Verdict.GRANTED
    desk.due()
    desk.wait(3600 + 10)

    assert "purge mark void" in desk.events()
    assert desk.deliver("new", created=made) is Verdict.GRANTED


def test_a_clock_that_is_adjusted_a_little_leaves_the_marks(desk: Desk) -> None:
    purge = Purge(EVERYTHING, int(desk.now()) + 2, desk.now(), "me")
    desk.purges.mark(purge)
    desk.wait(-0.05)

    desk.due()

    assert desk.purges.marks() == 1
    assert desk.deliver() is Verdict.SETTLED


# -- what it costs ------------------------------------------------------------------------------------------------


def test_names_are_told_from_each_other_whatever_is_in_them() -> None:
    assert json.loads(json.dumps([concerning("q", "a")])) == ["b\nq\na"]
    assert len({concerning("", ""), concerning("x", ""), concerning("", "x"), concerning("x", "x")}) == 4

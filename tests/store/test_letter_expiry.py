"""Dead letters that are older than they are to be kept are discarded and counted; nothing else is."""

from __future__ import annotations

from tests.store.desk import SHARD, Desk


def _letters(desk: Desk) -> list[str]:
    return [str(key, "utf-8") for key in desk.store.runner.command("HKEYS", desk.store.keys.letters(SHARD))]


def test_letters_expire_oldest_first_and_are_counted(desk: Desk) -> None:
    for task in ("old", "older than it seems", "young"):
        desk.fail(desk.run(task=task), task=task)
        desk.wait(10)
    desk.tasks.hold("older than it seems", "release", "somebody", SHARD)
    desk.fail(
        desk.run(task="older than it seems", seen=desk.record("older than it seems").fence), task="older than it seems"
    )

    assert desk.tasks.expire_letters([SHARD], 15) == {SHARD: 1}
    assert desk.tasks.expire_letters([SHARD], 15) == {SHARD: 0}

    assert desk.record("old").outcome == "discarded"
    assert desk.record("old").reason == "expired"
    assert set(_letters(desk)) == {"older than it seems", "young"}
    assert desk.count("discarded:expired") == desk.count("discarded") == desk.count("dlq_left") - 1 == 1
    assert desk.tasks.count_letters() == 2


def test_a_letter_whose_hooks_are_to_run_does_not_expire(desk: Desk) -> None:
    fence = desk.run()
    desk.fail(fence, hooks=True)
    desk.wait(100)

    assert desk.tasks.expire_letters([SHARD], 1) == {SHARD: 0}
    desk.settle(fence, confirmed=False)
    assert desk.tasks.expire_letters([SHARD], 1) == {SHARD: 1}


def test_a_late_copy_of_an_expired_letter_finds_it_settled(desk: Desk) -> None:
    desk.fail(desk.run())
    desk.wait(100)
    desk.tasks.expire_letters([SHARD], 1)

    assert desk.claim(seen=0).verdict == "settled"


def test_letters_expire_a_hundred_at_a_time(desk: Desk) -> None:
    for number in range(130):
        desk.tasks.dead_letter(desk.sending(task=f"t{number}"), "ActorNotFound", b"")
    desk.wait(100)

    assert [desk.tasks.expire_letters([SHARD], 1)[SHARD] for _ in range(3)] == [100, 30, 0]

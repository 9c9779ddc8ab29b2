"""What becomes samples: counters that never go back, and a bounded number of series."""

from __future__ import annotations

from collections.abc import Mapping

from relier import measures
from relier.measures import OTHER, Counters, Ratchet, Sheet, measure_admission, measure_contents, measure_members
from relier.store.admissions import Usage
from relier.store.fleet import Busy
from relier.store.holds import NO_HOLDS
from relier.store.members import Members
from relier.store.state import Contents, Kind
from relier.store.statistics import BOUNDS, Histogram, Row


def row(queue: str = "default", actor: str = "work", lengths: Histogram | None = None, **counts: int) -> Row:
    histogram = lengths or Histogram()
    return Row(queue, actor, {name.replace("__", ":"): n for name, n in counts.items()}, *[histogram] * 3)


def of_one_length(count: int, total: float = 0.0) -> Histogram:
    return Histogram((count, *[0] * len(BOUNDS)), total)


def measured(counters: Counters, *rows: Row) -> Mapping[tuple[str, ...], object]:
    """Return the samples by metric and labels."""
    sheet = Sheet()
    counters.measure(rows, sheet)
    return {(name, *labels): value for name, samples in sheet.samples.items() for labels, value in samples}


def test_a_number_never_goes_back_a_little() -> None:
    ratchet = Ratchet()
    assert [ratchet.hold(n, "some") for n in (5, 10, 9, 6, 10, 12)] == [5, 10, 10, 10, 10, 12]


def test_a_number_begins_anew_from_far_below() -> None:
    ratchet = Ratchet()
    assert [ratchet.hold(n, "some") for n in (100, 3, 4)] == [100, 3, 4]


def test_each_number_has_its_own_past() -> None:
    ratchet = Ratchet()
    assert ratchet.hold(10, "one") == 10
    assert ratchet.hold(9, "other") == 9


def test_every_outcome_of_an_actor_is_told_from_the_beginning() -> None:
    found = measured(Counters(), row(accepted=1))
    outcomes = {key[3]: value for key, value in found.items() if key[0] == "relier_tasks_total"}
    assert outcomes == {"completed": 0, "dead": 0, "discarded": 0}
    assert found["relier_tasks_accepted_total", "default", "work"] == 1
    assert found["relier_idempotency_hits_total", "default", "work"] == 0


def test_what_belongs_to_no_task_is_told_without_one() -> None:
    found = measured(Counters(), row("", "", admitted=7, admission_failed_open=2, unsigned=3))
    assert found["relier_admission_total", "admitted"] == 7
    assert found["relier_admission_total", "rejected"] == 0
    assert found["relier_admission_total", "failed_open"] == 2
    assert found["relier_events_total", "unsigned"] == 3
    assert not [key for key in found if key[1:3] == ("", "")]


def test_reasons_are_labels() -> None:
    found = measured(Counters(), row(dead=2, dead__KeyError=2, discarded=1, discarded__purged=1))
    assert found["relier_dead_lettered_total", "default", "work", "KeyError"] == 2
    assert found["relier_discarded_total", "default", "work", "purged"] == 1


def test_a_histogram_goes_back_in_no_bucket() -> None:
    counters = Counters()
    measured(counters, row(lengths=of_one_length(10, 5.0)))
    held = measured(counters, row(lengths=of_one_length(9, 4.0)))["relier_run_seconds", "default", "work"]
    assert held == of_one_length(10, 5.0)


def test_resurrections_of_a_queue_are_told_together() -> None:
    rows = [row(actor=actor, lengths=of_one_length(2, 1.0)) for actor in ("one", "other")]
    assert measured(Counters(), *rows)["relier_resurrection_seconds", "default"] == of_one_length(4, 2.0)


def test_more_actors_than_have_room_are_told_together_and_those_told_keep_theirs() -> None:
    counters, most = Counters(), measures.MOST
    rows = [row(actor=f"actor-{i}", accepted=1) for i in range(most)]
    measured(counters, *rows)
    found = measured(counters, row(actor="a-first", accepted=5), *rows, row(actor="z-last", accepted=6))
    accepted = {key[2]: value for key, value in found.items() if key[0] == "relier_tasks_accepted_total"}
    assert len(accepted) == most + 1
    assert accepted[OTHER] == 11
    assert accepted["actor-0"] == 1


def test_more_kinds_of_dead_letters_than_have_room_are_told_together() -> None:
    found = Contents()
    found.letters.update({Kind("default", "work", f"reason {i}"): 1 for i in range(measures.MOST + 30)})
    sheet = Sheet()
    measure_contents(found, sheet)
    letters = dict(sheet.samples["relier_dead_letters"])
    assert len(letters) == measures.MOST + 1
    assert letters[OTHER, OTHER, OTHER] == 30


def members(told: Mapping[str, Mapping[str, object]], **more: object) -> Members:
    values: dict[str, object] = {"present": dict.fromkeys(told, True), "busy": {}, "leases": {}, "owed": {}, **more}
    return Members(now=1000.0, told=told, holds=NO_HOLDS, **values)  # type: ignore[arg-type]


def sheet_of(found: Members) -> dict[str, dict[tuple[str, ...], object]]:
    sheet = Sheet()
    measure_members(found, sheet)
    return {name: dict(samples) for name, samples in sheet.samples.items()}


def test_workers_are_told_by_state_and_resurrectors_apart() -> None:
    told: dict[str, dict[str, object]] = {
        "a": {"threads": 8},
        "b": {"threads": 2, "state": "draining"},
        "c": {"threads": 4},
        "r": {"role": "resurrector", "threads": 1},
    }
    found = sheet_of(members(told, present={"a": True, "b": True, "c": False, "r": True}))
    assert found["relier_workers"] == {("alive",): 1, ("draining",): 1, ("drained",): 0, ("silent",): 1}
    assert found["relier_worker_threads"] == {(): 14}
    assert found["relier_resurrectors"] == {(): 1}


def test_what_a_gone_worker_ran_is_not_in_flight() -> None:
    busy = {
        "a": [Busy("default", "work", 2, 3.0)],
        "b": [Busy("default", "work", 1, 7.0)],
        "gone": [Busy("q", "w", 1, 1)],
    }
    found = sheet_of(members({"a": {}, "b": {}}, busy=busy))
    assert found["relier_tasks_in_flight"] == {("default", "work"): 3}
    assert found["relier_longest_run_seconds"] == {("default", "work"): 7.0}


def test_leases_of_the_dead_are_free() -> None:
    leases = {"watch": "d|a|1", "shards-0": "d|gone|1", "member:a": "x"}
    assert sheet_of(members({"a": {}}, leases=leases))["relier_sweep_leases_free"] == {(): 8}


def test_how_long_the_dead_have_waited() -> None:
    found = sheet_of(members({}, owed={"x": 990.0, "y": 999.0}))
    assert found["relier_orphan_lag_seconds"] == {(): 10.0}
    assert found["relier_workers_unburied"] == {(): 2}


def test_limits_of_keys_are_not_told() -> None:
    usages = [Usage("global", 3, 10, 10.0, 0), Usage("actor:work", 1, 5, 1.0, 0), Usage("key:work:alice", 1, 1, 1.0, 1)]
    sheet = Sheet()
    measure_admission(usages, sheet)
    assert dict(sheet.samples["relier_admission_used"]) == {("global",): 3, ("actor:work",): 1}

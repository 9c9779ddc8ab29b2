"""Every metric of the Prometheus endpoint: name, type, labels and what it tells. `docs/metrics.md` has this table."""

from __future__ import annotations

from typing import Literal, NamedTuple

from relier.account import COUNTERS

Type = Literal["counter", "gauge", "histogram"]

_QUEUE, _ACTOR, _TASK = ("queue",), ("actor",), ("queue", "actor")


class Metric(NamedTuple):
    """One family. Counters end in `_total`; a unit is in the name, else it is a number of things."""

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str


#: What becomes of a task, by the counter of the store.
OUTCOMES = ("completed", "dead", "discarded")
#: Counters of the store that are told by queue and actor, with their metrics.
OF_TASKS = {
    "accepted": "relier_tasks_accepted_total",
    "failed": "relier_failures_total",
    "retries": "relier_retries_total",
    "crashes": "relier_crashes_total",
    "resurrections": "relier_resurrections_total",
    "handed_over": "relier_handed_over_total",
    "idempotency_hits": "relier_idempotency_hits_total",
    "duplicates_waited": "relier_duplicates_waited_total",
    "slow": "relier_slow_tasks_total",
}
#: Counters with a reason behind a colon.
BY_REASON = {"dead": "relier_dead_lettered_total", "discarded": "relier_discarded_total"}
#: Admission's counters, with what it decided.
DECISIONS = {"admitted": "admitted", "admission_rejected": "rejected", "admission_failed_open": "failed_open"}
#: The other counters of the store: what is seldom and worth a look.
EVENTS = tuple(name for name in COUNTERS if name not in {*OUTCOMES, *OF_TASKS, *DECISIONS})
#: States of a worker, as `rl worker status` tells them.
STATES = ("alive", "draining", "drained", "silent")

METRICS = (
    Metric(
        "relier_up", "gauge", (), "1 when the store answered; 0 when it did not, and then nothing else of it is told."
    ),
    Metric(
        "relier_broker_up", "gauge", (), "1 when the broker answered; 0 when it did not, and then no depth is told."
    ),
    Metric("relier_build_info", "gauge", ("version",), "1, with the exporter's version of Relier."),
    Metric("relier_collection_seconds", "gauge", (), "How long reading store and broker took for this page."),
    # -- tasks
    Metric("relier_tasks_accepted_total", "counter", _TASK, "Tasks that the store has come to know."),
    Metric(
        "relier_tasks_total",
        "counter",
        (*_TASK, "outcome"),
        "Tasks that ended: completed, dead (a dead letter), or discarded on request.",
    ),
    Metric("relier_dead_lettered_total", "counter", (*_TASK, "reason"), "Tasks that became dead letters, by reason."),
    Metric("relier_discarded_total", "counter", (*_TASK, "reason"), "Tasks that were discarded, by reason."),
    Metric("relier_failures_total", "counter", _TASK, "Runs that failed."),
    Metric("relier_retries_total", "counter", _TASK, "Failures that were followed by another attempt."),
    Metric("relier_crashes_total", "counter", _TASK, "Runs whose worker died."),
    Metric("relier_resurrections_total", "counter", _TASK, "Tasks that were put back after the death of their worker."),
    Metric("relier_handed_over_total", "counter", _TASK, "Runs that a stopping worker handed over."),
    Metric("relier_idempotency_hits_total", "counter", _TASK, "Tasks that ended with another one's result."),
    Metric("relier_duplicates_waited_total", "counter", _TASK, "Tasks that waited for another one with their key."),
    Metric("relier_slow_tasks_total", "counter", _TASK, "Tasks that completed later than their actor's slo_latency."),
    Metric("relier_queue_wait_seconds", "histogram", _TASK, "Time from a task's push to the claim of its first run."),
    Metric("relier_run_seconds", "histogram", _TASK, "Time from a run's claim to its commit or failure."),
    Metric(
        "relier_resurrection_seconds",
        "histogram",
        _QUEUE,
        "Time from when a worker's death was noted to the claim of the task's next run.",
    ),
    Metric("relier_tasks_in_flight", "gauge", _TASK, "Tasks that ran at the last beat of their worker."),
    Metric("relier_longest_run_seconds", "gauge", _TASK, "For how long the oldest of those had run."),
    Metric("relier_events_total", "counter", ("event",), "What is not ordinary, by the counter of the store."),
    # -- queues
    Metric("relier_queue_depth", "gauge", _QUEUE, "Messages that wait in the broker; absent where it cannot tell."),
    Metric(
        "relier_queue_oldest_age_seconds",
        "gauge",
        _QUEUE,
        "Age of the message at the queue's head, 0 when it is empty; absent where the broker cannot tell.",
    ),
    Metric("relier_queue_consumers", "gauge", _QUEUE, "Living workers that consume the queue."),
    Metric("relier_queue_paused", "gauge", _QUEUE, "1 while the queue is paused by hand."),
    # -- what waits in the store
    Metric(
        "relier_tasks_waiting", "gauge", (), "Tasks that wait in the store: retries, delays, orphans, published ones."
    ),
    Metric("relier_tasks_due", "gauge", (), "Those of them whose time has come, and that are not published yet."),
    Metric("relier_due_lag_seconds", "gauge", (), "For how long the oldest of those has been due."),
    Metric("relier_tasks_parked", "gauge", _TASK, "Tasks that no living worker can run, or may begin."),
    Metric("relier_dead_letters", "gauge", (*_TASK, "reason"), "Dead letters that are in the DLQ now."),
    # -- the fleet
    Metric("relier_workers", "gauge", ("state",), "Workers; a silent one has no subscriber on its control channel."),
    Metric("relier_worker_threads", "gauge", (), "Threads of all workers: how many tasks can run at once."),
    Metric("relier_resurrectors", "gauge", (), "Resurrectors that are registered."),
    Metric(
        "relier_sweep_leases_free", "gauge", (), "Parts of the sweep that nobody living does; workers do it as well."
    ),
    Metric("relier_workers_unburied", "gauge", (), "Workers that parted and whose tasks are not all put back."),
    Metric("relier_orphan_lag_seconds", "gauge", (), "For how long the first of those has waited for that."),
    # -- admission
    Metric("relier_admission_total", "counter", ("decision",), "Decisions: admitted, rejected, failed_open."),
    Metric("relier_admission_used", "gauge", ("limit",), "Permits of a limit that are in use now."),
    Metric("relier_admission_limit", "gauge", ("limit",), "Permits of a limit in its window."),
    # -- objectives
    Metric("relier_slo_target_ratio", "gauge", ("actor", "objective"), "Which share of its tasks is to succeed."),
    Metric("relier_slo_latency_seconds", "gauge", _ACTOR, "Time from push to completion that the actor promises."),
    Metric(
        "relier_slo_burn_rate",
        "gauge",
        ("actor", "objective", "window"),
        "Failures over the failures allowed, in the window: 1 spends the budget in exactly its period.",
    ),
    Metric(
        "relier_slo_alert",
        "gauge",
        ("actor", "objective", "severity"),
        "1 while the burn rates ask for a page or a ticket, as rl slo status says.",
    ),
    Metric(
        "relier_slo_budget_left_ratio",
        "gauge",
        ("actor", "objective"),
        "Share of the error budget of 30 days that is left; below 0 when more than all of it is spent.",
    ),
    # -- the store
    Metric("relier_store_records", "gauge", (), "Tasks of which the store keeps a record."),
    Metric(
        "relier_store_ping_seconds", "gauge", (), "How long Redis, or all masters of a Cluster, took to answer a PING."
    ),
    Metric("relier_store_memory_bytes", "gauge", (), "Memory that Redis uses; of a Cluster, its fullest master."),
    Metric("relier_store_memory_max_bytes", "gauge", (), "Its maxmemory; 0: none."),
    Metric("relier_store_clients", "gauge", (), "Connections to Redis."),
    Metric("relier_store_aof_ok", "gauge", (), "1 when Redis keeps an append-only file and writes it without errors."),
    Metric("relier_store_replicas", "gauge", (), "Replicas that are connected to Redis."),
    Metric("relier_store_evicted_keys_total", "counter", (), "Keys that Redis evicted: each may have been a task."),
)
BY_NAME = {metric.name: metric for metric in METRICS}

"""Lose a master under load, and see how soon work goes on, what was lost, and what was noticed.

    python -m benchmarks.failover [--group sentinel|cluster] [--stop] [--replicas 1] [--rounds 3] [--quick]

Each round starts servers of its own on loopback: a master with replicas and three Sentinels, or three masters with a
replica each; then two workers, a resurrector, and a producer that pushes about 70 tasks a second. The master (of a
cluster: the one that has the messages) is killed with SIGKILL, or frozen with SIGSTOP and thawed after the promotion.
The producer knows which of its tasks a replica had confirmed (`WAIT`) before. Exit code 1 when one of these is lost,
when work resumes later than 5 s after the promotion, or when a living worker was declared dead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

from tests import sources
from tests.failover import Failover, Outcome
from tests.integration.harness import Harness
from tests.servers.groups import ClusterGroup, Group, Member, SentinelGroup

#: Latest resumption (s) after the promotion.
RESUMED = 5.0


def one_round(kind: str, replicas: int, stop: bool, seconds: float) -> Outcome:
    binary = sources.group_binary()
    name = f"{kind} of {binary}"
    group: Group = SentinelGroup(binary, name, replicas) if kind == "sentinel" else ClusterGroup(binary, name, replicas)
    folders = tempfile.TemporaryDirectory(prefix="rl-failover-")
    with closing(group), folders as folder, closing(Harness(group, Path(folder))) as fleet:
        failover = Failover(group, fleet, victim_of(group, fleet))
        return failover.lose_master(freeze if stop else Member.kill, seconds, seconds)


def victim_of(group: Group, fleet: Harness) -> Member:
    if isinstance(group, ClusterGroup):
        return group.owner(f"{fleet.broker.namespace}:default")
    return group.masters()[0]


def freeze(master: Member) -> None:
    """Freeze a master, and let it go on once the others had time to replace it."""
    master.stop()
    thaw = threading.Timer(8.0, master.cont)
    thaw.daemon = True
    thaw.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", choices=("sentinel", "cluster"), default="sentinel")
    parser.add_argument("--stop", action="store_true", help="freeze the master instead of killing it")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round")
    args = parser.parse_args()
    bad = False
    for number in range(1 if args.quick else args.rounds):
        outcome = one_round(args.group, args.replicas, args.stop, 2.0 if args.quick else 5.0)
        print(f"round {number + 1}:", *outcome.lines(), sep="\n  ", flush=True)
        bad |= bool(outcome.lost_replicated or outcome.declared_dead or outcome.works_again > RESUMED)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()

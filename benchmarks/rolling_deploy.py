"""Deploy a new release of an application, and roll it back, one worker at a time, under load and kills.

    python -m benchmarks.rolling_deploy [--broker embedded|redis|two-redises|rabbitmq|quorum] [--workers 4] [--kills 20]
                                        [--rounds 2] [--quick]

Both releases are installed in environments of their own. The new one has changed its actors' arguments, and migrates
those of the old one. Producers of both place orders all the time, the new one from before the first new worker until
after the last one was rolled back. Workers are replaced one by one; SIGKILLs are spread over it, and who is killed is
replaced by its own release. Each round deploys, rolls back, and deploys again.

At the end every accepted task must be completed, none dead-lettered, and every run must have had the arguments that
its sender meant, in the shape of the release that ran it. Reported are how often tasks were declined by workers that
are too old for them, and how long orders of each release took. Exit code 1 if anything is wrong. `--quick` is one
deploy with 3 workers and 3 kills.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.conformance.topologies import FOREIGN, TOPOLOGIES, OwnServers
from tests.versions.deploy import RollingDeploy
from tests.versions.environments import install


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=[name for name in TOPOLOGIES if name not in FOREIGN], default="embedded")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.workers, args.kills, args.rounds = 3, 3, 0
    seed = args.seed if args.seed is not None else random.randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="rl-rolling-") as name, closing(OwnServers()) as servers:
        folder = Path(name)
        old, new = (install(number, folder / f"release-{number}") for number in (1, 2))
        ground = TOPOLOGIES[args.broker].prepare(servers, folder)
        with closing(ground.fleet(ground.store, folder)) as fleet:
            deploy = RollingDeploy(fleet, old, new, args.workers, args.kills, args.rounds, chance=random.Random(seed))
            start = time.monotonic()
            counters, wrong = _outcome(deploy)
            seconds = time.monotonic() - start
            print(f"seed {seed}, {args.broker} ({ground.broker.description}), {args.workers} workers, {seconds:.0f} s:")
            print(f"{deploy.replaced} workers replaced, {deploy.killed} killed; {deploy.tasks()} tasks accepted,")
            print(", ".join(f"{counters.get(name, 0)} {name}" for name in ("completed", "dead", "crashes", "parked")))
            print(deploy.bounces(counters))
            print(*deploy.waits(), sep="\n")
    print(f"WRONG: {wrong}" if wrong else "no task lost, none run with the wrong arguments, none dead-lettered")
    sys.exit(bool(wrong))


def _outcome(deploy: RollingDeploy) -> tuple[dict[str, int], str]:
    try:
        return deploy.run(), ""
    except AssertionError as error:
        return deploy.fleet.store.counters(), str(error)


if __name__ == "__main__":
    main()

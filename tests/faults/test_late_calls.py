"""What was sent over a connection that was given up never takes effect later, however long the network held it back."""

from __future__ import annotations

import pytest

from tests.conftest import PrivateServers
from tests.faults.load import Load
from tests.faults.proxy import TO_SERVER, Proxy
from tests.integration.conftest import Fleets


@pytest.mark.parametrize("kind", ["embedded", "redis"])
def test_calls_that_arrive_late_change_nothing(fleets: Fleets, private_server: PrivateServers, kind: str) -> None:
    """Claims, fetches and commits arrive after their tasks were taken by others, ended, and were forgotten."""
    server = private_server(kind)
    fleet = fleets(server, redis_socket_timeout=1)
    with Proxy(server.url) as link:
        fleet.worker(redis_url=link.url, threads=8).wait_ready()
        fleet.worker().wait_ready()
        with Load(fleet).running() as load:
            fleet.wait(lambda: len(fleet.effects("ran")) > 100, what="some work done")
            link.half_open(TO_SERVER, new=False)
            fleet.wait(lambda: link.seen["held to server"] >= 3, what="calls that are held back")
            before = link.seen["connected"]
            fleet.wait(lambda: link.seen["connected"] >= before + 3, 30, "new connections")
            seen = len(fleet.effects("ran"))
            fleet.wait(lambda: len(fleet.effects("ran")) > seen + 300, 30, "work in the meantime")
            link.heal()
            seen = len(fleet.effects("ran"))
            fleet.wait(lambda: len(fleet.effects("ran")) > seen + 100, 30, "work afterwards")

        counters = fleet.settle(len(load.sent), 60)

    assert counters["completed"] == len(load.sent), fleet.report()
    assert set(fleet.counted("ran")) == set(load.sent)
    assert set(fleet.counted("ran").values()) == {1}, fleet.report()

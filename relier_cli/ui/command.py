"""`rl ui`: shows in a browser of this machine what `rl top` shows in a terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Annotated, Any

import typer
from dramatiq import Broker

from relier.errors import RelierError
from relier.settings import Settings, get_settings
from relier_cli.application import application
from relier_cli.opening import opened_store
from relier_cli.ui.server import Server
from relier_cli.view import Looker, Paced

#: How often (s) the system is looked at, however many pages are open.
EVERY = 1.0


def ui(
    *,
    addr: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen: loopback alone; port 0 takes a free one.")
    ] = "127.0.0.1:8008",
) -> None:
    """Show what rl top shows on a web page of this machine, until Ctrl-C. It reads only.

    It listens on loopback, without a login: who can log in to this machine can read it. From elsewhere, use a tunnel:
    ssh -L 8008:127.0.0.1:8008 HOST.

    Example: rl ui --addr 127.0.0.1:8008
    """
    address = parsed(addr)
    settings = get_settings()
    known = application(settings)
    with ThreadPoolExecutor(1) as thread:
        data = looked_by(thread, settings, known.broker, known.queues)
        data()  # What is wrong is said before anybody opens the page.
        with listening(address, data) as server:
            typer.echo(f"Relier is shown at {server.url} (Ctrl-C ends it)")
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with suppress(KeyboardInterrupt):
                server.serve_forever()


def parsed(addr: str) -> tuple[str, int]:
    """Return host and port. Raises `typer.BadParameter`, which says what is meant."""
    host, _, port = addr.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise typer.BadParameter(f"{addr!r} is no host:port, such as 127.0.0.1:8008.")
    return host.strip("[]"), int(port)


def listening(address: tuple[str, int], data: Callable[[], Any]) -> Server:
    try:
        return Server(address, data)
    except ValueError as error:
        tunnel = "use a tunnel from elsewhere: ssh -L 8008:127.0.0.1:8008 HOST"
        raise typer.BadParameter(f"rl ui listens on loopback alone, and {error}; {tunnel}.") from None
    except OSError as error:
        where = f"{address[0]}:{address[1]}"
        raise RelierError(
            f"rl ui cannot listen on {where}: {error.strerror or error}. Try --addr 127.0.0.1:0."
        ) from None


def looked_by(thread: ThreadPoolExecutor, settings: Settings, broker: Broker, declared: set[str]) -> Callable[[], Any]:
    """Return what returns the data, looked at by one thread for all who ask."""
    looker: list[Looker] = []

    def look() -> Any:
        with opened_store(settings) as store:
            if not looker:
                looker.append(Looker(store, broker, settings, declared))
            return looker[0].look().data()

    return Together(thread, Paced(look, EVERY))


class Together:
    """Gives all who ask while somebody looks the same answer: no queue of them outlasts a store that hangs.

    Parameters:
      thread: looks.
      look: returns the answer.
    """

    def __init__(self, thread: ThreadPoolExecutor, look: Callable[[], Any]) -> None:
        self._thread = thread
        self._look = look
        self._asking = threading.Lock()
        self._looked: Future[Any] | None = None

    def __call__(self) -> Any:
        with self._asking:
            if self._looked is None or self._looked.done():
                self._looked = self._thread.submit(self._look)
            looked = self._looked
        return looked.result()

"""Gives the pulse of the worker process that started it, for as long as the system lets that process run.

A program of its own, started by `relier.pulse`: a thread of the worker could not tell that it lives while another one
holds the interpreter. It imports only what is built into Python, and decides nothing: it sends bytes that the worker
made, as often as the worker said, unless the worker is stopped, a zombie or gone. It ends with the worker.

Orders come on stdin, each with its length (4 bytes) in front: marshalled (family, address, opening, openings, pulse,
pulse with source, seconds). Every reply is one line.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import marshal
import posix
import select
import sys
import time

#: States of a process in `/proc` that are no life: stopped, traced, zombie, dead.
LIFELESS = b"TtZXx"
#: How often (s) it looks whether the worker is there, on a system that cannot tell at once.
LOOK = 0.25
#: Longest wait (s) for Redis: the worker's end is not noticed meanwhile.
PATIENCE = 1.0


def is_alive(pid: int) -> bool:
    """Whether the system runs the process, be it idle or not."""
    try:
        file = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY)
    except OSError:
        return False
    try:
        return posix.read(file, 1024).rpartition(b") ")[2][:1] not in LIFELESS
    finally:
        posix.close(file)


class Line:
    """The connection to Redis, made again when it is lost."""

    def __init__(self) -> None:
        self.socket: _socket.socket | None = None
        self.place: tuple | None = None  # type: ignore[type-arg]

    def send(self, order: tuple) -> None:  # type: ignore[type-arg]
        family, address, opening, openings, pulse, pulse_with_source, _ = order
        if self.place != (family, address, opening):
            self.close()
        try:
            if self.socket is None:
                self.place = (family, address, opening)
                self.socket = _socket.socket(family, _socket.SOCK_STREAM)
                self.socket.settimeout(PATIENCE)
                self.socket.connect(address)
                ask(self.socket, opening, openings)
            reply = ask(self.socket, pulse, 1)
            if reply.startswith(b"-NOSCRIPT"):
                reply = ask(self.socket, pulse_with_source, 1)
            if reply.startswith(b"-"):  # Not opened well, or no longer the master.
                self.close()
        except OSError:
            self.close()

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def ask(line: _socket.socket, commands: bytes, replies: int) -> bytes:
    """Send commands and return their replies."""
    line.sendall(commands)
    received = b""
    while received.count(b"\n") < replies:
        more = line.recv(4096)
        if not more:
            raise ConnectionError
        received += more
    return received


def next_order(buffer: bytes) -> tuple:  # type: ignore[type-arg]
    """Return the newest complete order, or None, and what follows it."""
    order = None
    while len(buffer) >= 4:
        end = 4 + int.from_bytes(buffer[:4], "big")
        if len(buffer) < end:
            break
        order, buffer = marshal.loads(buffer[4:end]), buffer[end:]
    return order, buffer


def main(worker: int) -> None:
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)  # Meant for the worker, which takes its time.
    watched, pause = [0], LOOK
    try:
        watched.append(posix.pidfd_open(worker))
        pause = 60.0
    except (AttributeError, OSError):
        pass
    line, order, buffer, due = Line(), None, b"", 0.0
    while posix.getppid() == worker:
        until_due = max(0.0, due - time.monotonic()) if order else pause
        ready = select.select(watched, [], [], min(pause, until_due))[0]
        if 0 in ready:
            received = posix.read(0, 65536)
            if not received:
                return
            newer, buffer = next_order(buffer + received)
            order = newer or order
        if order and time.monotonic() >= due:
            due = time.monotonic() + order[-1]
            if is_alive(worker):
                line.send(order)


if __name__ == "__main__":
    main(int(sys.argv[1]))

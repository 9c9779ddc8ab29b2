"""What sealing and examining cost per message, without keys and with them.

    python benchmarks/integrity.py [--quick]

Prints microseconds of processor time, the least of several rounds.
"""

from __future__ import annotations

import argparse
import time
import timeit
from collections.abc import Callable

from dramatiq import Message

from relier.envelope import stamp_first_hand
from relier.integrity import Integrity
from relier.keyring import KeyRing

SMALL = Message("default", "send_invoice", (1234, "someone@example.org"), {"cents": 995}, {})
LARGE = Message("default", "index", ([{"id": i, "name": f"item {i}", "price": i / 4} for i in range(100)],), {}, {})


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    number = 500 if parser.parse_args().quick else 5000
    kinds = {"checksum": Integrity(), "signature": Integrity(KeyRing.parse("k1:" + "s" * 64))}
    for size, message in {"small": SMALL, "large": LARGE}.items():
        for kind, integrity in kinds.items():
            sealing, examining = measure(message, integrity, number)
            length = len(stamp_first_hand(message).encode())
            print(f"{size} ({length} bytes), {kind}: sealing {sealing:.1f} µs, examining {examining:.1f} µs")


def measure(message: Message[None], integrity: Integrity, number: int) -> tuple[float, float]:
    """Return the microseconds that sealing and examining take."""
    fresh = stamp_first_hand(message)
    integrity.seal(fresh)
    received: Message[None] = Message.decode(fresh.encode())
    return least(lambda: integrity.seal(fresh), number), least(lambda: integrity.examine(received), number)


def least(call: Callable[[], object], number: int) -> float:
    return min(timeit.repeat(call, timer=time.process_time, number=number, repeat=9)) / number * 1e6


if __name__ == "__main__":
    main()

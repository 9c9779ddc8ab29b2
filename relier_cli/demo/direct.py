"""The same measurement without tasks, to compare with."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from relier_cli.demo import tie
from relier_cli.demo.files import FileFacts, measure

#: Files that one process measures at once.
CHUNK = 25
#: Most processes.
PROCESSES = 4


def measure_directly(
    library: Path, names: list[str], tied_to: Path, progress: Callable[[int], None]
) -> dict[str, FileFacts]:
    """Measure all files in processes of the demo's own; `progress`, called often with their number, may raise."""
    measured: dict[str, FileFacts] = {}
    chunks = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
    pool = ProcessPoolExecutor(
        max_workers=min(PROCESSES, os.cpu_count() or 1),
        mp_context=multiprocessing.get_context("fork"),  # Quick, and this process has no other threads yet.
        initializer=tie.follow,
        initargs=(str(tied_to),),
    )
    try:
        for chunk in as_completed([pool.submit(_measure_chunk, library, chunk) for chunk in chunks]):
            measured.update(chunk.result())
            progress(len(measured))
    finally:
        pool.shutdown(cancel_futures=True)
    return measured


def _measure_chunk(library: Path, names: list[str]) -> dict[str, FileFacts]:
    return {name: measure(library / name) for name in names}

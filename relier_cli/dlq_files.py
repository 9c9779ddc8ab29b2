"""`rl dlq export` and `import`: dead letters as lines of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from relier.dlq import DeadLetters
from relier.errors import RelierError
from relier.integrity import Integrity
from relier.letter_lines import BadLineError, entry_of, line_of
from relier.settings import get_settings
from relier.store.letter_entries import Entry
from relier_cli.actors import load_actors
from relier_cli.letter_filters import Filters, Limit, filtered
from relier_cli.opening import opened_store, who
from relier_cli.output import AsJson, print_json, print_text
from relier_cli.typos import tell_unknown_filters

#: How many lines are taken in at once.
PIECE = 100
#: Most bad lines that are named one by one.
NAMED = 100


@filtered
def export(
    filters: Filters,
    *,
    limit: Limit = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; it must not exist. Default: standard output.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write dead letters as JSON, a line each, the oldest first: everything that `rl dlq import` needs.

    They stay dead letters. With --json a summary follows on standard output, when the lines go to a file.

    Example: rl dlq export --reason TypeError -o letters.jsonl
    """
    if as_json and output is None:
        raise typer.BadParameter("the lines are JSON already; with --json they need a file: --output")
    with opened_store() as store:
        dead, wanted, exported = DeadLetters(store, who()), filters.wanted(store), 0
        with _opened(output) as file:
            for entry in dead.export(wanted, limit):
                file.write(json.dumps(line_of(entry)) + "\n")
                exported += 1
        if not exported:
            tell_unknown_filters(dead, wanted)
    if as_json:
        print_json({"exported": exported, "file": str(output)})
    else:
        typer.echo(f"{exported} dead letters exported.", err=output is None)


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    try:
        file = open(path, "x", encoding="utf-8", opener=_private)  # noqa: SIM115
    except OSError as error:
        raise RelierError(f"The file {path} cannot be written: {error.strerror}.") from None
    with file:
        yield file


def _private(path: str, flags: int) -> int:
    """Payloads may be nobody else's business, from the beginning: who has opened a file reads on."""
    return os.open(path, flags, 0o600)


def import_letters(
    file: Annotated[Path, typer.Argument(help="Lines that `rl dlq export` wrote; - for standard input.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look at the lines.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take in dead letters that were exported, here or elsewhere. A line that is in order goes in whatever others are.

    What is a dead letter here already, or a task that goes on or has ended here, stays as it is, so that an import can
    be repeated. Purged ones come back. Nothing runs until it is released. Exits 1 when a line is bad, and names it.

    Example: rl dlq import letters.jsonl
    """
    settings = get_settings()
    load_actors(settings)  # They may set the encoder that payloads need.
    tally, bad = Counter[str](), _Bad()
    with opened_store(settings) as store, _read(file) as lines:
        dead = DeadLetters(store, who())
        for piece in _pieces(lines, Integrity.of(settings), bad):
            tally.update(["valid"] * len(piece) if dry_run else dead.take_in(piece))
    _report(tally, bad, dry_run, as_json)
    raise typer.Exit(1 if bad.count else 0)


class _Bad:
    """The lines that were not taken."""

    def __init__(self) -> None:
        self.count = 0
        self.named: list[dict[str, Any]] = []

    def add(self, number: int, why: str) -> None:
        self.count += 1
        if len(self.named) < NAMED:
            self.named.append({"line": number, "why": why})


@contextmanager
def _read(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise RelierError(f"The file {path} cannot be read: {error.strerror}.") from None
    with file:
        yield file


def _pieces(lines: IO[bytes], integrity: Integrity, bad: _Bad) -> Iterator[list[Entry]]:
    piece: list[Entry] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            piece.append(entry_of(line, integrity))
        except BadLineError as error:
            bad.add(number, str(error))
        if len(piece) == PIECE:
            yield piece
            piece = []
    yield piece


def _report(tally: Counter[str], bad: _Bad, dry_run: bool, as_json: bool) -> None:
    if as_json:
        names = ("imported", "exists", "known")
        found = {"valid": tally["valid"]} if dry_run else {name: tally[name] for name in names}
        print_json({"dry_run": dry_run, **found, "bad": bad.count, "bad_lines": bad.named})
        return
    for line in bad.named:
        print_text(f"line {line['line']}: {line['why']}")
    if bad.count > len(bad.named):
        typer.echo(f"… and {bad.count - len(bad.named)} more")
    if dry_run:
        typer.echo(f"{tally['valid']} lines are in order, {bad.count} are bad.")
        return
    there = f"{tally['exists']} are dead letters here already, {tally['known']} are tasks that go on or have ended here"
    typer.echo(f"{tally['imported']} dead letters imported; {there}; {bad.count} lines are bad.")

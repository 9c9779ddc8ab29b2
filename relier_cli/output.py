"""Prints what commands found: JSON for programs, tables on a terminal, else plain aligned columns."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from relier import dead_letters

#: Why what is printed cannot be written: a disk that is full, a terminal that was closed.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})

#: The option that every command which prints data has.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, default=repr))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under headers, aligned; with colours and borders on a terminal only."""
    cells = [[_cell(value) for value in row] for row in rows]
    if _has_colours():
        _print_rich(headers, cells)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for line in ([header.upper() for header in headers], *cells):
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def _print_rich(headers: Sequence[str], cells: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def coloured(text: str, colour: str) -> str:
    """Return a text in a colour, where colours are wanted."""
    return typer.style(text, fg=colour) if _has_colours() else text


def _has_colours() -> bool:
    """Whether standard output is a terminal that takes colours, and nobody objects (https://no-color.org)."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print one `name: value` a line, aligned; what has no value is left out."""
    present = [(name, _cell(value)) for name, value in fields if value not in (None, "", [], ())]
    width = max((len(name) for name, _ in present), default=0) + 1
    for name, text in present:
        typer.echo(f"{name + ':':{width}}  {text}")


def print_text(text: str) -> None:
    """Print a text that is not ours, as it is but for what would disturb a terminal."""
    for line in text.splitlines():
        typer.echo(printable(line.replace("\t", "    ")))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "-"
    return printable(str(value)) or "-"


def printable(text: str) -> str:
    """Escape what would disturb a terminal: names and texts may come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


#: Returns a time as ISO 8601 in UTC, None for none.
iso = dead_letters.iso


def number(count: int, thing: str) -> str:
    """Return a number of things for people: 1 task, 2 tasks."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def span(seconds: float) -> str:
    """Return a length of time for people: 4s, 12m, 3h 05m, 2d 4h."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"

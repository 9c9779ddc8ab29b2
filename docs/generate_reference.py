"""Write the generated parts of docs/reference.md: `python docs/generate_reference.py [--check]`.

They are what stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from relier import errors
from relier.settings import PREFIX, Settings
from relier_cli.app import app

REFERENCE = Path(__file__).with_name("reference.md")
SCHEMAS = Path(__file__).resolve().parent.parent / "relier_cli" / "schemas"
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: Defaults that depend on the machine, as a reader should see them.
_DEFAULTS = {
    "state_dir": "`$XDG_STATE_HOME/relier`, else `~/.local/state/relier`",
    "signing_required": "true once keys are set",
}


def reference(text: str) -> str:
    """Return the page with its generated parts written anew."""
    return _PART.sub(lambda part: part[1] + _MAKERS[part[2]]() + part[3], text)


def settings_table() -> str:
    """Return one row for each setting."""
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join(["| variable | default | value | meaning |", "|---|---|---|---|", *rows, ""])


def _row(name: str, field: Any) -> str:
    expected = (field.json_schema_extra or {}).get("expected", "")
    meaning = field.description
    cells = (f"`{PREFIX}{name.upper()}`", _DEFAULTS.get(name) or _default(field.default), expected, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(value: Any) -> str:
    if value is None or value in ((), ""):
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def commands(group: Any = None, path: str = "rl") -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name."""
    group = group or typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def command_table() -> str:
    """Return one row for each command."""
    rows = ["| command | what it does | JSON |", "|---|---|---|"]
    for name, command in commands():
        # Arguments last: what follows `--` is not ours.
        parameters = sorted(command.params, key=lambda p: p.param_type_name == "argument")
        usage = " ".join([name, *(_usage(p) for p in parameters if p.name != "help")])
        summary = inspect.cleandoc(command.help or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")
        rows.append(f"| `{usage}` | {summary} | {_schema(name)} |".replace("…", "..."))
    return "\n".join([*rows, ""])


def _schema(name: str) -> str:
    file = f"{'-'.join(name.split()[1:])}.json"
    return f"[schema](../relier_cli/schemas/{file})" if (SCHEMAS / file).exists() else ""


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    option = max(parameter.opts, key=len)
    return f"[{option}]" if parameter.is_flag else f"[{option} {parameter.name.upper()}]"


def error_table() -> str:
    """Return one row for each error."""
    rows = ["| error | derives from | meaning |", "|---|---|---|"]
    for name, error in vars(errors).items():
        if inspect.isclass(error) and error.__module__ == errors.__name__:
            bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
            meaning = inspect.cleandoc(error.__doc__ or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")
            rows.append(f"| `{name}` | {bases} | {meaning} |")
    return "\n".join([*rows, ""])


_MAKERS: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "commands": command_table,
    "errors": error_table,
}


def main() -> None:
    """Write the page, or with `--check` exit 1 when it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is out of date")
    arguments = parser.parse_args()
    before = REFERENCE.read_text(encoding="utf-8")
    after = reference(before)
    if arguments.check:
        sys.exit(0 if before == after else f"{REFERENCE} is out of date: python docs/generate_reference.py")
    REFERENCE.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()

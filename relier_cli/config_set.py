"""`rl config set`: changes one variable in `.env`, and says what that changes and what it does not."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from relier.errors import RelierConfigError
from relier.settings import ENV_FILE
from relier_cli.completing import complete_setting
from relier_cli.env_file import EnvFile, edited_alone
from relier_cli.output import AsJson, print_json, print_text
from relier_cli.variables import is_secret, problems_of, sources, variable


@dataclass(frozen=True, slots=True)
class Change:
    """What `rl config set` did."""

    name: str
    file: str
    #: Whether the file says something else than before.
    changed: bool
    #: Whether the environment of this shell has a value of its own, which wins.
    overridden: bool
    #: Whether others could read the file, and cannot any more.
    made_private: bool
    #: What is wrong with other variables; it was so before.
    problems: list[str]
    #: Settings are read once.
    restart_needed: bool


def set_value(
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="The variable, with or without RELIER_.", autocompletion=complete_setting),
    ],
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="Its value; - reads it from standard input.")
    ] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Remove the variable instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a setting to the .env of this folder: checked first, all or nothing, every other line as it was.

    Processes read their settings once: restart workers, resurrector and producers. A variable of the environment wins
    over .env; it is told when there is one. A file that holds a password is readable for its owner alone from then on.
    A value that begins with a dash follows --.

    Example: rl config set HEARTBEAT_TTL 20
    """
    name = variable(key)
    if unset == (value is not None):
        raise typer.BadParameter("Give a value, or --unset.")
    typed, path = None if value is None else _typed(value), Path(ENV_FILE)
    with edited_alone(path):
        change = change_setting(path, name, typed)
    if as_json:
        print_json(asdict(change))
    else:
        show(change, unset=unset)


def _typed(value: str) -> str:
    text = (sys.stdin.readline() if value == "-" else value).strip()
    if not text:
        raise typer.BadParameter("An empty value is no value: --unset removes the variable.")
    return text


def change_setting(path: Path, name: str, value: str | None) -> Change:
    """Write a variable to a `.env`, or remove it (None). Raises `RelierConfigError`; then nothing was changed."""
    file = EnvFile(path)
    before, was_wrong = file.text, _problems(file.text)
    if value is None:
        file.drop(name)
    else:
        file.put(name, value)
    wrong = _problems(file.text, {} if value is None else {name: value})
    own = [problem for problem in wrong if problem.startswith(f"{name}=")]
    if value is not None and own:
        raise RelierConfigError(own)
    if wrong and not was_wrong:  # What was wrong before is not made right by refusing.
        raise RelierConfigError(wrong)
    exposed = is_secret(name, value) and file.is_public
    changed = file.text != before
    if changed or exposed:
        file.save(private=is_secret(name, value))
    overridden = sources({})[name] == "environment"
    return Change(name, str(file.path), changed, overridden, exposed, wrong, restart_needed=changed)


def _problems(text: str, given: dict[str, str] | None = None) -> list[str]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", prefix="rl-config-") as file:
        file.write(text)
        file.flush()
        return problems_of(file.name, given)


def show(change: Change, *, unset: bool) -> None:
    """Tell what was done, and what is to be done."""
    what = "is removed from" if unset else "is written to"
    if not change.changed:
        what = "was not in" if unset else "was that already in"
    print_text(f"{change.name} {what} {change.file}.")
    if change.made_private:
        print_text("The file holds a secret: only its owner may read it from now on.")
    if change.overridden:
        print_text(
            f"Nothing changes by it here: the environment has a {change.name} of its own, and wins over .env. Change it"
            " there: in the shell, the unit file, Compose or Kubernetes."
        )
    for problem in change.problems:
        print_text(f"Wrong now: {problem}")
    if change.restart_needed:
        print_text("Restart workers, resurrector and producers that read this file: settings are read once.")

"""`rl config`: the settings in effect, whether they fit, and changing them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from relier.settings import ENV_FILE, PREFIX, Settings, get_settings, safe_url
from relier_cli import config_set, config_validate
from relier_cli.deploy_check import declared_actors, described, look_ahead, show_outlook
from relier_cli.env_file import EnvFile, values
from relier_cli.output import AsJson, print_json, print_text
from relier_cli.variables import sources

app = typer.Typer(help="Settings: show, check and change them.", no_args_is_help=True)
app.command("validate")(config_validate.validate)
app.command("set")(config_set.set_value)


@app.command()
def show(
    origin: Annotated[
        bool, typer.Option("--origin", help="Say where each comes from: environment, .env or default.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print every setting, one NAME=value a line, with secrets masked. What is unset and has no default is empty.

    Example: rl config show --origin
    """
    shown = masked(get_settings())
    come = sources(values(EnvFile(Path(ENV_FILE)).text)) if origin else {}
    if as_json:
        print_json({name: {"value": value, "origin": come[name]} for name, value in shown.items()} if origin else shown)
        return
    for name, value in shown.items():
        print_text(f"{name}={_as_variable(value)}{f'  # {come[name]}' if origin else ''}")


@app.command("check-deploy")
def check_deploy(
    modules: Annotated[
        list[str] | None, typer.Argument(metavar="MODULES…", help="Actor modules, besides those of RELIER_ACTORS.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also fail for what cannot be read and may be stuck.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell whether everything queued, scheduled and dead has a path to the code of this environment.

    Run it where the new release is installed, before its first worker starts. Exits 1 when something has no path.

    Example: rl config check-deploy my_app.tasks
    """
    settings = get_settings()
    broker = declared_actors((*settings.actors, *(modules or ())), settings)
    found = look_ahead(broker, settings)
    report = described(found)
    if as_json:
        print_json(report)
    else:
        show_outlook(found, report)
    raise typer.Exit(1 if found.without_path or (strict and found.possible) else 0)


def masked(settings: Settings) -> dict[str, Any]:
    """Return every setting by its variable's name, without secrets."""
    return {PREFIX + name.upper(): _masked(getattr(settings, name)) for name in Settings.model_fields}


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, str | Path):
        return safe_url(value) if "://" in str(value) else str(value)
    if isinstance(value, tuple):
        return [":".join(map(str, part)) if isinstance(part, tuple) else part for part in value]
    return value


def _as_variable(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

"""`mimo config`: every setting of every command, its value here and where that comes from.

The output is a settings file itself: `mimo config > mimo.toml` writes down what is in force now.
"""

import json
import os
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

import typer

from mimo_cli.commands import registry
from mimo_cli.commands.command import MimoCommand, long_flag, setting_name
from mimo_cli.commands.options import GeneralOptions
from mimo_cli.errors import UsageError
from mimo_cli.settings import NOT_FROM_PROJECT, file_defaults, read_settings_files

EXAMPLES = ("mimo config", "mimo config chat", "mimo config chat > mimo.toml")


@dataclass(frozen=True)
class Setting:
    """One option of one command: its name as in a settings file, its value, where that comes from, its variable."""

    name: str
    value: Any
    origin: str
    variable: str | None


def config(
    general: GeneralOptions,
    command: Annotated[str | None, typer.Argument(metavar="COMMAND", help="Only this command.")] = None,
    as_json: Annotated[bool, typer.Option("-j", "--json", help="One JSON object.")] = False,
) -> None:
    """Print every setting with its origin: a MIMO_ variable, ./mimo.toml, the user's config.toml, or the default."""
    if command is not None and command not in registry.COMMANDS:
        raise UsageError(f"there is no command `{command}`", hint="mimo --help")
    terminal = general.terminal()
    names = [command] if command else [entry.name for entry in registry.ENTRIES]
    tables = {name: command_settings(name, registry.load_command(name)) for name in names}
    tables = {name: settings for name, settings in tables.items() if settings}
    if as_json:
        objects = {name: {item.name: vars(item) for item in settings} for name, settings in tables.items()}
        terminal.write(json.dumps({"schema": 1, "commands": objects}, ensure_ascii=False) + "\n")
        return
    terminal.write("\n".join(_table(name, settings) for name, settings in tables.items()))


def command_settings(name: str, command: MimoCommand) -> list[Setting]:
    """Return the settings of one command, in the order of its options."""
    from_files = file_defaults(read_settings_files(), name)
    return [_setting(option, from_files) for option in command.options()]


def _setting(option: Any, from_files: dict[str, tuple[Any, Any]]) -> Setting:
    name = long_flag(option).removeprefix("--")
    variable = option.envvar if isinstance(option.envvar, str) else None
    if variable and os.environ.get(variable):
        return Setting(name, os.environ[variable], variable, variable)
    if setting_name(option) in from_files:
        value, path = from_files[setting_name(option)]
        return Setting(name, value, str(path), variable)
    default = option.default() if callable(option.default) else option.default
    return Setting(name, default.value if isinstance(default, Enum) else default, "default", variable)


def _table(name: str, settings: list[Setting]) -> str:
    # What a project file may not set is shown as a comment, so that the output can be kept as one.
    refused = {item.name for item in settings if item.name.replace("-", "_") in NOT_FROM_PROJECT}
    rows = [
        (f"{'# ' if item.name in refused else ''}{item.name} = {_toml(item.value)}", item.origin)
        for item in settings
        if item.value is not None
    ]
    rows += [(f"# {item.name} =", item.origin) for item in settings if item.value is None]
    width = max(len(left) for left, _ in rows)
    return f"[{name}]\n" + "".join(f"{left:<{width}}  # {origin}\n" for left, origin in rows)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string is a TOML string, except that TOML forbids DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else str(value)

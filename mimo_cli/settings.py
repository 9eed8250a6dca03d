"""Settings and places: what the environment and the settings files say, read in this one place.

A value of an option comes from the first of: flag, `MIMO_FLAG_NAME` variable, `./mimo.toml`,
`$XDG_CONFIG_HOME/mimo/config.toml`, default. Flags and variables are the parser's business; here are the files:
keys at the top level are for every command that has the option, a table such as `[chat]` is for that command.
Directories follow the XDG rules; `MIMO_HOME` moves the models.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_cli.errors import UsageError

NOT_FROM_PROJECT = frozenset({"allow_net", "output"})
"""Options that `./mimo.toml` may not set: a folder one happens to stand in must not open the network or pick files."""


@dataclass(frozen=True)
class SettingsFile:
    """One parsed settings file. `is_project` is true for `./mimo.toml`."""

    path: Path
    values: Mapping[str, Any]
    is_project: bool

    def for_command(self, command: str) -> dict[str, Any]:
        """Return option name (with underscores) -> value; the command's own table wins over the top level."""
        shared = {key: value for key, value in self.values.items() if not isinstance(value, Mapping)}
        own = self.values.get(command, {})
        merged = {key.replace("-", "_"): value for key, value in {**shared, **own}.items()}
        # `false` opens nothing and names nothing: it may stand in a file that `mimo config` wrote down.
        set_here = {key for key, value in merged.items() if value is not False and value is not None}
        refused = sorted(NOT_FROM_PROJECT & set_here) if self.is_project else []
        if refused:
            raise UsageError(
                f"`{self.path}` sets `{refused[0].replace('_', '-')}`, which a project file may not",
                hint=f"give it as a flag, or set it in {user_settings_path()}",
            )
        return merged


def user_settings_path() -> Path:
    """Return the path of the user's settings file, existing or not."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "mimo" / "config.toml"


def models_folder() -> Path:
    """Return the folder that holds models by name."""
    home = os.environ.get("MIMO_HOME")
    return Path(home).expanduser() / "models" if home else _xdg("XDG_DATA_HOME", ".local/share") / "mimo" / "models"


def hub_cache_folder() -> Path:
    """Return the Hugging Face hub cache, which is used in place and never written."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else _xdg("XDG_CACHE_HOME", ".cache") / "huggingface") / "hub"


def cache_folder() -> Path:
    """Return the folder for what can be made again: measurements, statistics of experts."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "mimo"


def state_folder() -> Path:
    """Return the folder for chats and the history of the dialogue."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "mimo"


def read_settings_files() -> list[SettingsFile]:
    """Read the settings files that exist, the strongest first. Raises UsageError naming a file that is not TOML."""
    candidates = [(Path("mimo.toml"), True), (user_settings_path(), False)]
    return [SettingsFile(path, _read_toml(path), is_project) for path, is_project in candidates if path.is_file()]


def file_defaults(files: Iterable[SettingsFile], command: str) -> dict[str, tuple[Any, Path]]:
    """Return option name -> (value, file it comes from) for one command."""
    found: dict[str, tuple[Any, Path]] = {}
    for file in files:
        for key, value in file.for_command(command).items():
            found.setdefault(key, (value, file.path))
    return found


def check_names(files: Iterable[SettingsFile], options_by_command: Mapping[str, Iterable[str]]) -> None:
    """Raise UsageError for a key that is no option: of any command at the top level, of its command in a table."""
    everything = {name for names in options_by_command.values() for name in names}
    for file in files:
        for key, value in file.values.items():
            if not isinstance(value, Mapping):
                _require_known(file.path, key, key, everything)
            elif key not in options_by_command:
                raise UsageError(f"`{file.path}` has a table `[{key}]`, but there is no such command")
            else:
                for name in value:
                    _require_known(file.path, f"{key}.{name}", name, set(options_by_command[key]))


def _require_known(path: Path, shown: str, name: str, known: set[str]) -> None:
    if name.replace("-", "_") not in known:
        raise UsageError(f"`{path}` sets `{shown}`, which is no option", hint="mimo config")


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # here because most runs have no settings file, and `mimo --help` must start fast

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise UsageError(f"settings file `{path}` cannot be read: {err}", hint=f"correct or remove {path}") from err


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG rules: a relative path in these variables is invalid and to be ignored.
    return Path(value) if value.startswith("/") else Path.home() / fallback

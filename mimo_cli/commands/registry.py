"""The names of all commands, and how one is loaded when it is called.

Importing this imports no command: `mimo --help` needs the names and one line for each.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mimo_cli.settings import check_names, file_defaults, read_settings_files

if TYPE_CHECKING:
    from mimo_cli.commands.command import MimoCommand


@dataclass(frozen=True)
class Entry:
    """One command: its name is also its module in `mimo_cli.commands` and the function in it."""

    name: str
    summary: str


ENTRIES = (
    Entry("chat", "talk with the model: text, pictures, video, sound and files"),
    Entry("transcribe", "write down speech as text, subtitles or JSON"),
    Entry("plan", "say what would run here, where it would lie and how fast"),
    Entry("doctor", "check this machine and say what to mend"),
    Entry("bench", "measure prompt and generation speed"),
    Entry("eval", "judge a model: task scores, perplexity, distance to another"),
    Entry("quantize", "write a model with smaller weights, as a packed store"),
    Entry("inspect", "show what a model, a tensor, a media file or a prompt is"),
    Entry("miniature", "write a tiny model in the release's layout"),
    Entry("config", "show every setting and where its value comes from"),
    Entry("completion", "print the completion script of a shell"),
    Entry("version", "print the version"),
)
COMMANDS = {entry.name: entry for entry in ENTRIES}
ALIASES = {"ask": "chat", "run": "chat", "convert": "quantize"}
"""Other names of commands, as comparable programs call them."""

ABSENT = {
    "serve": "mimo chat --json answers a script",
    "pull": "hf download XiaomiMiMo/MiMo-V2.5, then -m with that id",
    "models": "mimo inspect MODEL",
    "tokens": 'mimo inspect --prompt "TEXT"',
    "describe": 'mimo chat --image FILE "Describe it."',
    "tune": "mimo plan --measure",
}
"""Commands that one may expect and that do not exist, and what does their work: they are no questions."""


def load_command(name: str) -> "MimoCommand":
    """Import a command's module and build its parser. The module may list runnable lines as EXAMPLES."""
    framework = importlib.import_module("mimo_cli.commands.command")
    module = importlib.import_module(f"mimo_cli.commands.{name}")
    command: MimoCommand = framework.build_command(name, getattr(module, name), getattr(module, "EXAMPLES", ()))
    return command


def run(name: str, args: list[str]) -> int:
    """Load and run a command with the settings files that are in force; returns the exit code.

    Raises UsageError for a wrong command line or settings file, and whatever the command raises.
    """
    command = load_command(name)
    files = read_settings_files()
    defaults = file_defaults(files, name)
    if not defaults.keys() <= set(command.option_names()):
        check_names(files, {entry.name: load_command(entry.name).option_names() for entry in ENTRIES})
    framework = importlib.import_module("mimo_cli.commands.command")
    values = {key: value for key, (value, _) in defaults.items()}
    places = {key: path for key, (_, path) in defaults.items()}
    code = framework.run_command(command, f"mimo {name}", args, values, places)
    return int(code or 0)

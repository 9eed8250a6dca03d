"""`mimo version`: the version of mimo and of what it stands on."""

import importlib.metadata
import json
import platform
from typing import Annotated, Any

import typer

from mimo_cli.commands.options import GeneralOptions

EXAMPLES = ("mimo version", "mimo version --json", "mimo --version")

_LIBRARIES = ("torch", "numpy", "tokenizers", "safetensors", "typer", "av", "opencv-python-headless", "soundfile")


def version(
    general: GeneralOptions,
    as_json: Annotated[bool, typer.Option("-j", "--json", help="One JSON object.")] = False,
) -> None:
    """Print the version of mimo; with -v or --json also those of Python and the libraries."""
    terminal = general.terminal()
    found = versions()
    if as_json:
        terminal.write(json.dumps({"schema": 1, **found}) + "\n")
        return
    names = list(found) if general.verbose else ["mimo"]
    terminal.write("".join(f"{name} {found[name]}\n" for name in names))


def versions() -> dict[str, Any]:
    """Return name -> version, without importing what is named; None for a library that is not installed."""
    return {"mimo": _version("mimo-cli"), "python": platform.python_version()} | {
        name: _version(name) for name in _LIBRARIES
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None

"""MiMo-V2.5 on your own machine: text, images, video and audio in, text out.

The public names are those of `mimo_cli.api`; they are loaded when first used, because the command line must start
without torch.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "Engine",
    "SamplingParams",
    "__version__",
    "errors",
    "load",
    "load_audio",
    "load_vision",
    "render_chat",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "errors":
        return import_module("mimo_cli.errors")
    if name in __all__:
        return getattr(import_module("mimo_cli.api"), name)
    raise AttributeError(f"module `mimo_cli` has no attribute `{name}`")


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    metadata = import_module("importlib.metadata")
    try:
        return str(metadata.version("mimo-cli"))
    except metadata.PackageNotFoundError:  # run from a source tree that was not installed
        return "0+unknown"

"""The libraries that read media, loaded when one of them is first used: a question in words alone needs none.

They take a quarter of a second of a program that answers in two. Names behind them are what the libraries have;
`except` clauses and quoted annotations load nothing.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av as av
    import cv2 as cv2
    import soundfile as soundfile


class _Library(ModuleType):
    """Stands for a library and asks it for every name."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


if not TYPE_CHECKING:
    av, cv2, soundfile = (_Library(name) for name in ("av", "cv2", "soundfile"))

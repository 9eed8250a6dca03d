"""Run `mimo` inside the test process, with its three streams apart."""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from mimo_cli.app import main


@dataclass(frozen=True)
class Run:
    """What one run left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


class _Stream(io.TextIOWrapper):
    def __init__(self, content: bytes = b"", is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", newline="")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


@contextmanager
def isolated_environment(home: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Hide the user's own variables, settings and models; HOME is `home`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MIMO_", "XDG_", "HF_"))}
    kept.pop("NO_COLOR", None)
    with mock.patch.dict(os.environ, {**kept, "HOME": str(home), "TERM": "xterm", **environ}, clear=True):
        yield


def run_cli(
    *argv: str,
    home: Path,
    stdin: bytes | None = b"",
    terminal: bool = False,
    environ: Mapping[str, str] | None = None,
    **patches: Any,
) -> Run:
    """Run `mimo ARGV`; stdin None is a terminal, bytes are a pipe. With `terminal`, stdout and stderr are terminals.

    `patches` are dotted names (with __ for .) under `mimo_cli` to replace during the run.
    """
    out, err = _Stream(is_terminal=terminal), _Stream(is_terminal=terminal)
    source = _Stream(stdin or b"", is_terminal=stdin is None)
    with (
        isolated_environment(home, environ or {}),
        mock.patch.object(sys, "stdin", source),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
    ):
        replaced = [mock.patch(f"mimo_cli.{name.replace('__', '.')}", value) for name, value in patches.items()]
        for patch in replaced:
            patch.start()
        try:
            code = main(list(argv))
        finally:
            for patch in replaced:
                patch.stop()
    return Run(code, out.text(), err.text())

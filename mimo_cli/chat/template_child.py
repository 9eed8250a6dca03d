"""A child process that renders an untrusted chat template within limits of time, memory and output.

The sandbox alone cannot stop a template that loops for ever or doubles a string forty times; the operating system can.
One render costs about a tenth of a second more than in-process; templates we know skip it (`template.py`).
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from mimo_cli.chat.jinja_sandbox import RenderFailure, render

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_PROGRAM = """
import sys
sys.path[:] = {path!r}
from mimo_cli.chat.template_child import answer
answer(sys.stdin.buffer, sys.stdout.buffer)
"""


@dataclass(frozen=True)
class RenderLimits:
    """What one render may use; `output_factor` counts characters of output per byte of input, beyond `output_chars`.

    The longest honest output repeats its input once, the tool list perhaps twice; the limits are far above that.
    """

    seconds: float = 10.0
    memory_bytes: int = 1_000_000_000
    output_chars: int = 1_000_000
    output_factor: int = 4

    def max_chars(self, input_bytes: int) -> int:
        """Longest output for an input of this size, in characters."""
        return self.output_chars + self.output_factor * input_bytes


def render_in_child(template_text: str, variables: Mapping[str, Any], limits: RenderLimits | None = None) -> str:
    """Render in a child process. Raises RenderFailure like `render`, with kind `limit` where a limit was hit.

    The variables must be JSON values; they travel as JSON.
    """
    limits = limits or RenderLimits()
    # ASCII: lone surrogates in a message survive as escapes.
    values = json.dumps(variables)
    request = {
        "template": template_text,
        "variables": values,
        "max_chars": limits.max_chars(len(values)),
        "memory_bytes": limits.memory_bytes + 32 * len(values),
        "seconds": limits.seconds,
    }
    command = [sys.executable, "-c", _PROGRAM.format(path=[entry or "." for entry in sys.path])]
    try:
        # Wall time only backs up the limit of processor time: a busy machine is not the template's fault.
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, timeout=6 * limits.seconds, check=False
        )
        reply = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise RenderFailure("limit", f"it ran longer than {limits.seconds:g} s") from None
    except json.JSONDecodeError:
        raise RenderFailure("limit", _death(done, limits)) from None
    if "kind" in reply:
        raise RenderFailure(reply["kind"], reply["message"])
    return reply["text"]


def answer(reader: BinaryIO, writer: BinaryIO) -> None:
    """Serve one request: the child's side of `render_in_child`."""
    request = json.loads(reader.read())
    variables = json.loads(request["variables"])
    _limit_resources(request["seconds"], request["memory_bytes"])
    try:
        reply = {"text": render(request["template"], variables, request["max_chars"])}
    except RenderFailure as err:
        reply = {"kind": err.kind, "message": str(err)}
    writer.write(json.dumps(reply).encode())
    writer.flush()


def _limit_resources(seconds: float, memory_bytes: int) -> None:
    """Ask the operating system to stop this process past its limits; where it cannot, the parent's timeout remains."""
    if resource is None:
        return
    for limit, amount in ((resource.RLIMIT_CPU, max(1, round(seconds))), (resource.RLIMIT_AS, memory_bytes)):
        with contextlib.suppress(ValueError, OSError):  # some systems refuse a limit on address space
            resource.setrlimit(limit, (amount, amount))


def _death(done: subprocess.CompletedProcess[bytes], limits: RenderLimits) -> str:
    if done.returncode < 0:
        return f"it was stopped after {limits.seconds:g} s of work or {limits.memory_bytes / 1e9:g} GB of memory"
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
    return f"its process ended with code {done.returncode}: {last[0]}"

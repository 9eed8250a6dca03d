"""Routing traces: which experts each pass visited, written while a model runs, read by replays and benchmarks.

A trace is lines of JSON (docs/traces.md). The first line says what it is of, every other line is one pass:

    {"format": "mimo-routing", "version": 1, "model": "...", "layers": [1, 2, ...], "experts": 256, "active": 8}
    {"n": 1, "e": [[17, 3, ...], [201, ...], ...]}
    {"n": 512, "e": [[0, 1, 2, ...], ...], "c": [[16, 14, 21, ...], ...]}

`n` tokens went through; `e` lists for every layer the experts visited: of one token in the router's order, best first;
of several tokens every expert once, ascending, and `c` how many of the tokens went there.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from mimo_cli.errors import MimoError, UsageError
from mimo_cli.model.decoder import DecoderLayer, TextModel
from mimo_cli.model.moe import MoE

FORMAT_NAME, FORMAT_VERSION = "mimo-routing", 1


@dataclass(frozen=True)
class TracedPass:
    """One pass: number of tokens, experts of every layer, and how many tokens went to each (empty for one token)."""

    tokens: int
    experts: tuple[tuple[int, ...], ...]
    counts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class RoutingTrace:
    """Everything a trace holds. `layers` are those with experts, `experts` in each, `active` of them for a token."""

    model: str
    layers: tuple[int, ...]
    experts: int
    active: int
    passes: tuple[TracedPass, ...]

    @property
    def decoded(self) -> tuple[TracedPass, ...]:
        """The passes of single tokens."""
        return tuple(one for one in self.passes if one.tokens == 1)

    def lines(self) -> Iterator[str]:
        """Yield the file's lines, each with its end."""
        yield _header(self.model, self.layers, self.experts, self.active)
        for one in self.passes:
            yield _line(one)

    def write(self, path: Path) -> None:
        """Write the trace; it appears under its name when it is whole. Raises MimoError where that fails."""
        with _TraceFile(path) as file:
            for line in self.lines():
                file.write(line)


class RoutingRecorder:
    """Writes a line for every pass of a network while the `with` block lasts, and watches only from outside.

    The file grows as `.NAME.part` beside its place and gets its name at the end of the block, however that is left; a
    pass that was interrupted is no line. Raises MimoError where the file cannot be written.
    """

    def __init__(self, decoder: TextModel, path: Path, model: str) -> None:
        layers = [(i, layer) for i, layer in enumerate(decoder.layers) if isinstance(layer, DecoderLayer)]
        self._routers = [(i, layer.mlp.gate) for i, layer in layers if isinstance(layer.mlp, MoE)]
        self._decoder = decoder
        self._file = _TraceFile(path)
        self._model = model
        self._pass: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "RoutingRecorder":
        self._file.__enter__()
        experts, active = 0, 0
        for layer, router in self._routers:
            experts, active = router.weight.shape[0], router.num_experts_per_tok
            hook = router.register_forward_hook(lambda _m, _i, out, to=layer: self._note(to, out))
            self._handles.append(hook)
        self._file.write(_header(self._model, [layer for layer, _ in self._routers], experts, active))
        self._handles += [
            self._decoder.register_forward_pre_hook(lambda *_: self._pass.clear()),
            self._decoder.register_forward_hook(lambda *_: self._end_pass()),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._file.__exit__(kind, error, trace)

    def _note(self, layer: int, routed: Any) -> None:
        self._pass[layer] = routed[0]

    def _end_pass(self) -> None:
        if len(self._pass) == len(self._routers) and self._pass:
            self._file.write(_line(_traced([self._pass[layer] for layer, _ in self._routers])))


class _TraceFile:
    """A text file that appears under its name when it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._file: TextIO | None = None

    def __enter__(self) -> "_TraceFile":
        try:
            self._file = self._part.open("w", encoding="ascii")
        except OSError as err:
            raise MimoError(f"the trace `{self._path}` cannot be written: {err.strerror or err}") from err
        return self

    def write(self, line: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as err:
            raise MimoError(f"the trace `{self._path}` cannot be written: {err.strerror or err}") from err

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        with suppress(OSError):
            self._file.close()
        self._file = None
        try:
            os.replace(self._part, self._path)
        except OSError as err:
            raise MimoError(f"the trace `{self._path}` cannot be written: {err.strerror or err}") from err


def read_trace(path: Path) -> RoutingTrace:
    """Read a trace. A last line that was cut is left away. Raises UsageError naming line and fault otherwise."""
    try:
        lines = path.read_text("ascii").split("\n")
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is no text"
        raise UsageError(f"the trace `{path}` cannot be read: {reason}") from err
    head = _parse(path, 1, lines[0])
    if head.get("format") != FORMAT_NAME or not isinstance(head.get("version"), int):
        raise UsageError(f"`{path}` is no routing trace", hint="record one with --record-routing FILE")
    if head["version"] > FORMAT_VERSION:
        raise UsageError(f"`{path}` is of version {head['version']}, this program knows {FORMAT_VERSION}")
    try:
        layers, experts, active = tuple(int(i) for i in head["layers"]), int(head["experts"]), int(head["active"])
    except (KeyError, TypeError, ValueError) as err:
        raise UsageError(f"the first line of `{path}` is damaged: {err}") from err
    passes = [_read_pass(path, at, line, len(layers), experts) for at, line in enumerate(lines[1:-1], 2)]
    return RoutingTrace(str(head.get("model", "")), layers, experts, active, tuple(passes))


def _read_pass(path: Path, at: int, line: str, layers: int, experts: int) -> TracedPass:
    values = _parse(path, at, line)
    try:
        found = tuple(tuple(int(i) for i in row) for row in values["e"])
        counts = tuple(tuple(int(i) for i in row) for row in values.get("c", ()))
        tokens = int(values["n"])
    except (KeyError, TypeError, ValueError) as err:
        raise UsageError(f"line {at} of `{path}` is damaged: {type(err).__name__} {err}") from err
    lengths = [len(row) for row in counts]
    is_sound = all(0 <= i < experts for row in found for i in row) and all(len(set(row)) == len(row) for row in found)
    if len(found) != layers or tokens < 1 or not is_sound or (counts and lengths != [len(row) for row in found]):
        raise UsageError(f"line {at} of `{path}` is damaged: {layers} layers of {experts} experts expected")
    return TracedPass(tokens, found, counts)


def _parse(path: Path, at: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as err:
        raise UsageError(f"line {at} of `{path}` is no JSON: {err}") from err
    if not isinstance(values, dict):
        raise UsageError(f"line {at} of `{path}` is no JSON object")
    return values


def _header(model: str, layers: Sequence[int], experts: int, active: int) -> str:
    shape = {"model": model, "layers": list(layers), "experts": experts, "active": active}
    return json.dumps({"format": FORMAT_NAME, "version": FORMAT_VERSION, **shape}) + "\n"


def _line(one: TracedPass) -> str:
    values: dict[str, Any] = {"n": one.tokens, "e": one.experts}
    if one.counts:
        values["c"] = one.counts
    return json.dumps(values, separators=(",", ":")) + "\n"


def _traced(chosen: Sequence[Tensor]) -> TracedPass:
    """Make a pass of the experts [N, A] that every layer's router chose."""
    tokens = len(chosen[0])
    if tokens == 1:
        return TracedPass(1, tuple(tuple(ids[0].tolist()) for ids in chosen))
    found = [ids.reshape(-1).unique(return_counts=True) for ids in chosen]  # ascending
    return TracedPass(
        tokens, tuple(tuple(ids.tolist()) for ids, _ in found), tuple(tuple(count.tolist()) for _, count in found)
    )

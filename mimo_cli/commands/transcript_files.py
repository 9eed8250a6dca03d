"""Where transcripts go: formats, output names, and writers that show a segment as soon as it is there.

stdout      text, srt, vtt, jsonl grow with each segment; json is one object for each file, at its end
-o FILE     one format of one file; -o DIR  NAME.FORMAT for each; both appear complete or not at all
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimo_cli.chat.named_files import user_path
from mimo_cli.commands.output_file import require_writable, write_atomically
from mimo_cli.commands.sources import STDIN
from mimo_cli.commands.subtitles import (
    APPROXIMATE,
    FORMATS,
    LineLimits,
    Segment,
    cues,
    json_line,
    json_segment,
    srt_blocks,
    text_lines,
    vtt_blocks,
)
from mimo_cli.errors import MimoError, UsageError

_SUFFIXES = {"text": "txt"}


@dataclass(frozen=True)
class TranscriptStyle:
    """How a transcript is written: whether text lines carry times, and how long subtitles may be."""

    with_times: bool | None = None
    limits: LineLimits = field(default_factory=LineLimits)


def parse_formats(text: str) -> tuple[str, ...]:
    """Read `srt,json`; `txt` is `text`. Raises UsageError for a format there is none of."""
    formats = tuple(dict.fromkeys("text" if name.strip() == "txt" else name.strip() for name in text.split(",")))
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"there is no format `{name}`", hint=f"--format with one of {', '.join(FORMATS)}")
    return formats


@dataclass(frozen=True)
class Targets:
    """Where every format of one input goes: file names, or stdout where there is none."""

    formats: tuple[str, ...]
    paths: tuple[Path, ...] = ()


def plan_targets(inputs: Sequence[str], formats: tuple[str, ...], output: str | None) -> list[Targets]:
    """Decide the targets of all inputs.

    Raises UsageError where they do not fit into what was asked for, or could not be written.
    """
    if output is None or output == STDIN:
        if len(formats) > 1:
            raise UsageError(f"{len(formats)} formats cannot share stdout", hint="-o DIR, or one format")
        return [Targets(formats) for _ in inputs]
    folder = user_path(output)
    if not (folder.is_dir() or output.endswith("/") or len(inputs) > 1 or len(formats) > 1):
        require_writable(folder)
        return [Targets(formats, (folder,))]
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"`{output}` is a file, a folder was expected for several transcripts", hint="-o DIR")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        hint = "-o with a folder you may write to"
        raise UsageError(f"the folder `{output}` cannot be made: {err.strerror or err}", hint=hint) from err
    targets = [
        Targets(formats, tuple(folder / f"{stem}.{_SUFFIXES.get(name, name)}" for name in formats))
        for stem in _stems(inputs)
    ]
    for path in (path for target in targets for path in target.paths):
        require_writable(path)
    return targets


def _stems(inputs: Sequence[str]) -> list[str]:
    """Name outputs after the inputs; where two would collide, after their full names, then with a number."""
    stems = ["stdin" if name == STDIN else Path(name).stem for name in inputs]
    if len(set(stems)) < len(stems):
        stems = ["stdin" if name == STDIN else Path(name).name for name in inputs]
    seen: dict[str, int] = {}
    for i, stem in enumerate(stems):
        seen[stem] = seen.get(stem, 0) + 1
        stems[i] = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
    return stems


class TranscriptWriter:
    """Writes one transcript in one format, segment by segment; `write` takes text as it becomes ready."""

    def __init__(self, format_name: str, name: str, style: TranscriptStyle, write: Callable[[str], None]) -> None:
        self._format = format_name
        self._name = name
        self._style = style
        self._write = write
        self._segments: list[Segment] = []
        self._num_cues = 0
        if format_name == "vtt":
            write("WEBVTT\n\n")

    def add(self, segment: Segment) -> None:
        """Write a segment, as far as the format can before the end."""
        self._segments.append(segment)
        if self._format == "text":
            for line in text_lines([segment], with_times=bool(self._style.with_times)):
                self._write(line + "\n")
        elif self._format == "jsonl":
            self._write(json_line(segment, self._name) + "\n")
        elif self._format in ("srt", "vtt"):
            parts = cues(segment, self._style.limits)
            blocks = srt_blocks(parts, self._num_cues + 1) if self._format == "srt" else vtt_blocks(parts)
            self._num_cues += len(parts)
            self._write("".join(block + "\n" for block in blocks))

    def finish(self, facts: dict[str, Any]) -> None:
        """End the transcript; `facts` about the whole go into JSON."""
        if self._format != "json":
            return
        with_times = self._style.with_times is not False
        texts = (" ".join(segment.text.split()) for segment in self._segments)
        document = {
            "schema": 1,
            "file": self._name,
            **facts,
            "text": " ".join(text for text in texts if text),
            **({"timestamps": APPROXIMATE} if with_times else {}),
            "segments": [json_segment(segment, with_times) for segment in self._segments],
        }
        self._write(json.dumps(document, ensure_ascii=False) + "\n")


class TranscriptFiles:
    """All writers of one input: files are put together in memory and written at the end.

    `reached_s` is the second of the recording up to which it was written down, None before the first segment.
    """

    def __init__(self, targets: Targets, name: str, style: TranscriptStyle, to_stdout: Callable[[str], None]) -> None:
        self.reached_s: float | None = None
        self._paths = targets.paths
        self._to_stdout = to_stdout
        self._texts: list[list[str]] = [[] for _ in targets.paths]
        sinks = [text.append for text in self._texts] if targets.paths else [to_stdout]
        self._writers = [
            TranscriptWriter(format_name, name, style, sink)
            for format_name, sink in zip(targets.formats, sinks, strict=True)
        ]

    def add(self, segment: Segment) -> None:
        """Write a segment everywhere."""
        self.reached_s = segment.end_s
        for writer in self._writers:
            writer.add(segment)

    def finish(self, facts: dict[str, Any]) -> None:
        """End all transcripts and write the files.

        Raises MimoError naming a file that cannot be written; its text is on stdout then.
        """
        for writer in self._writers:
            writer.finish(facts)
        failure: MimoError | None = None
        for path, pieces in zip(self._paths, self._texts, strict=True):
            try:
                write_atomically(path, "".join(pieces))
            except MimoError as err:
                self._to_stdout("".join(pieces))  # the work of hours must not be lost with its file
                failure = failure or err
        if failure is not None:
            raise failure

"""What one `mimo transcribe` was asked for: its options, and the whole request as a value. Loads nothing heavy."""

from dataclasses import dataclass
from typing import Annotated

import typer

from mimo_cli.commands.model_choice import ModelChoice
from mimo_cli.commands.options import ModelOptions, read_duration
from mimo_cli.commands.transcript_files import Targets, TranscriptStyle


@dataclass(frozen=True)
class SpeechOptions:
    """What is said and what is wanted of it."""

    language: Annotated[
        str | None, typer.Option("-l", "--language", metavar="CODE", help="Spoken language [found out].")
    ] = None
    translate: Annotated[
        str | None, typer.Option("--translate", metavar="LANG", help="Translate into this language.")
    ] = None
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Names and terms that may occur.")] = (
        None
    )
    think: Annotated[bool, typer.Option("--think/--no-think", help="Reason about each clip.", hidden=True)] = False
    temp: Annotated[float, typer.Option("-t", "--temp", metavar="T", min=0.0, help="0 = greedy.", hidden=True)] = 0.0
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="For --temp.", hidden=True)] = None


@dataclass(frozen=True)
class CuttingOptions:
    """Where recordings may come from, which part of them is read, and how it is cut."""

    start: Annotated[
        float | None, typer.Option("--start", metavar="TIME", parser=read_duration, help="Begin there: 90s, 00:01:30.")
    ] = None
    end: Annotated[float | None, typer.Option("--end", metavar="TIME", parser=read_duration, help="End there.")] = None
    chunk: Annotated[
        float | None,
        typer.Option("--chunk", metavar="TIME", parser=read_duration, help="Longest clip, 2s to 60s [30s]."),
    ] = None
    overlap: Annotated[
        float | None,
        typer.Option(
            "--overlap", metavar="TIME", parser=read_duration, help="Hear it twice at cuts [0s].", hidden=True
        ),
    ] = None
    vad: Annotated[bool, typer.Option("--vad/--no-vad", help="Skip silence [on].", hidden=True)] = True
    stdin_format: Annotated[
        str | None, typer.Option("--stdin-format", metavar="RAW", help="Headerless stdin: s16le:16000:1.", hidden=True)
    ] = None
    allow_net: Annotated[bool, typer.Option("--allow-net", help="Permit http(s) URLs.", hidden=True)] = False


@dataclass(frozen=True)
class WritingOptions:
    """Where transcripts go, and in which form."""

    format_names: Annotated[
        str, typer.Option("-f", "--format", metavar="NAMES", help="text, json, jsonl, srt, vtt; several with commas.")
    ] = "text"
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="PATH", help="A file, or a folder for NAME.FORMAT.")
    ] = None
    timestamps: Annotated[
        bool | None, typer.Option("--timestamps/--no-timestamps", help="Times in text [off], in JSON [on].")
    ] = None
    max_line_width: Annotated[
        int, typer.Option("--max-line-width", metavar="N", min=8, help="Columns of a subtitle.", hidden=True)
    ] = 42
    max_line_count: Annotated[
        int, typer.Option("--max-line-count", metavar="N", min=1, help="Lines of a subtitle.", hidden=True)
    ] = 2


@dataclass(frozen=True)
class TranscribeRequest:
    """The whole command line of one `mimo transcribe`; `targets` belong to `files`, one by one."""

    choice: ModelChoice
    files: tuple[str, ...]
    targets: tuple[Targets, ...]
    style: TranscriptStyle
    speech: SpeechOptions
    cutting: CuttingOptions
    model: ModelOptions

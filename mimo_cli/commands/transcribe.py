"""`mimo transcribe`: files in, transcripts out; text appears as each clip is done.

FILE -> Recording -> Transcriber (clips, one chat request each) -> Segment -> TranscriptFiles
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimo_cli.commands.model_choice import CONFIG_FILE, ModelChoice, choose_model
from mimo_cli.commands.options import GeneralOptions, ModelOptions, read_duration
from mimo_cli.commands.sources import STDIN, Stdin
from mimo_cli.commands.subtitles import LineLimits
from mimo_cli.commands.transcript_files import (
    Targets,
    TranscriptFiles,
    TranscriptStyle,
    parse_formats,
    plan_targets,
)
from mimo_cli.errors import CapacityError, CheckpointError, MimoError, UsageError
from mimo_cli.terminal.console import Terminal

if TYPE_CHECKING:
    from mimo_cli.commands.loading import LoadedModel
    from mimo_cli.commands.transcription import SpeechTask
    from mimo_cli.dialogue import TurnOptions
    from mimo_cli.media.audio import Recording
    from mimo_cli.media.splitter import SplitOptions

EXAMPLES = (
    "mimo transcribe talk.mp3",
    "mimo transcribe *.m4a --format srt,json -o transcripts/",
    "ffmpeg -i film.mp4 -f wav - | mimo transcribe - -f vtt > film.vtt",
)
SOME_FAILED = 5


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
    """Which part of a recording is read, and how it is cut."""

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
class _Job:
    """One input, opened: the name to call it, its recording or what is wrong with it, and where its text goes."""

    name: str
    recording: "Recording | None"
    error: MimoError | None
    targets: Targets


def transcribe(
    writing: WritingOptions,
    speech: SpeechOptions,
    cutting: CuttingOptions,
    model: ModelOptions,
    general: GeneralOptions,
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE...", help="Sound or video; - is stdin.")] = None,
) -> int:
    """Write down speech from recordings and videos: text, subtitles or JSON.

    Any container that FFmpeg reads will do (wav, mp3, flac, ogg, m4a, mp4, ...); of a video the sound track is taken.
    Long recordings are cut at quiet places; times are those of the cuts, so they are approximate. Without -o
    everything goes to stdout; JSON is then one object a line for each file.

    Exit codes: 0 done, 2 wrong usage or input, 3 model files missing or damaged, 5 some files failed, 130 Ctrl-C.
    """
    from mimo_cli.media.splitter import SplitOptions

    terminal = general.terminal()
    if not files:
        raise UsageError("there is nothing to transcribe", hint="mimo transcribe FILE, or - for stdin")
    split = SplitOptions(
        chunk_s=30.0 if cutting.chunk is None else cutting.chunk,
        overlap_s=cutting.overlap or 0.0,
        skip_silence=cutting.vad,
        start_s=cutting.start or 0.0,
        end_s=cutting.end,
    )
    style = TranscriptStyle(writing.timestamps, LineLimits(writing.max_line_width, writing.max_line_count))
    choice = choose_model(model.model)
    targets = plan_targets(files, parse_formats(writing.format_names), writing.output)
    jobs = _open_jobs(files, targets, choice, cutting.stdin_format, terminal)
    return _run_jobs(jobs, choice, model, speech, split, style, terminal)


def _open_jobs(
    files: Sequence[str], targets: Sequence[Targets], choice: ModelChoice, raw: str | None, terminal: Terminal
) -> list[_Job]:
    """Open every input before the model is loaded; raises the error of a single input, or of the first if all fail."""
    from dataclasses import replace

    from mimo_cli.checkpoint.config import ModelConfig
    from mimo_cli.commands.loading import media_options
    from mimo_cli.media.audio import open_recording
    from mimo_cli.media.audio_file import RawFormat

    config = ModelConfig.from_file(choice.folder / CONFIG_FILE)
    options = media_options(config, choice).audio
    stdin = Stdin(terminal)
    raw_options = replace(options, raw=RawFormat.parse(raw)) if raw else options
    jobs = []
    for name, target in zip(files, targets, strict=True):
        try:
            if name == STDIN:
                recording = open_recording(stdin.claim("`-`"), raw_options, name="standard input")
            else:
                recording = open_recording(Path(name).expanduser(), options, name=f"`{name}`")
            jobs.append(_Job(name, recording, None, target))
        except MimoError as err:
            jobs.append(_Job(name, None, err, target))
    errors = [job.error for job in jobs if job.error]
    if errors and len(errors) == len(jobs):
        for job in jobs[1:]:
            terminal.line(f"mimo: {job.name}: {job.error}")
        raise errors[0]
    return jobs


def _run_jobs(
    jobs: Sequence[_Job],
    choice: ModelChoice,
    model: ModelOptions,
    speech: SpeechOptions,
    split: "SplitOptions",
    style: TranscriptStyle,
    terminal: Terminal,
) -> int:
    from mimo_cli.commands.loading import announce, limit_threads, load_model
    from mimo_cli.commands.transcription import SpeechTask
    from mimo_cli.dialogue import Dialogue, TurnOptions
    from mimo_cli.engine.sampling import SamplingParams

    task = SpeechTask(speech.language, speech.translate, speech.prompt)
    options = TurnOptions(SamplingParams(temperature=speech.temp, seed=speech.seed), thinking=speech.think)
    failed: list[tuple[str, MimoError]] = []
    limit_threads(model)
    with load_model(choice, model, terminal) as loaded:
        if not loaded.engine.core.has_audio:
            raise UsageError(f"model {choice.name} cannot hear: it has no audio encoder", hint="-m with another model")
        dialogue = Dialogue(loaded.engine.speaker, context_tokens=model.ctx)
        announce(terminal, loaded, dialogue.timeline.max_tokens)
        for job in jobs:
            try:
                if job.error or job.recording is None:
                    raise job.error or MimoError(f"`{job.name}` was not opened")
                if len(jobs) > 1 and not job.targets.paths:
                    terminal.note(f"mimo: {job.name}")
                _transcribe_one(job, job.recording, loaded, dialogue, task, options, split, style, terminal)
            except (CheckpointError, CapacityError):
                raise
            except MimoError as err:
                failed.append((job.name, err))
                terminal.error(f"{job.name}: {err}")
    if failed and len(jobs) == 1:
        return failed[0][1].exit_code
    if failed:
        terminal.line(f"mimo: {len(failed)} of {len(jobs)} failed: {', '.join(name for name, _ in failed)}")
    return SOME_FAILED if failed else 0


def _transcribe_one(
    job: _Job,
    recording: "Recording",
    loaded: "LoadedModel",
    dialogue: Any,
    task: "SpeechTask",
    options: "TurnOptions",
    split: "SplitOptions",
    style: TranscriptStyle,
    terminal: Terminal,
) -> None:
    from mimo_cli.commands.transcription import Transcriber
    from mimo_cli.terminal.progress import Stage

    notes: list[str] = [*recording.notes]
    started_s = time.perf_counter()
    last_s = min(recording.duration_s, split.end_s or recording.duration_s)
    for note in recording.notes:
        terminal.warn(f"{job.name}: {note}")

    def warn(text: str) -> None:
        notes.append(text)
        terminal.warn(f"{job.name}: {text}")

    files = TranscriptFiles(job.targets, job.name, style, terminal.write)
    with Stage(terminal, Path(job.name).name, "s", bar=True) as stage:

        def show(done_s: float) -> None:
            stage.update(done_s - split.start_s, last_s - split.start_s)

        transcriber = Transcriber(dialogue, task, options, on_progress=show, warn=warn)
        for segment in transcriber.segments(recording, split):
            files.add(segment)
        files.finish(
            {
                "duration": round(recording.duration_s, 3),
                "language": task.language,
                "translated_to": task.translate_to,
                "model": loaded.choice.name,
                "notes": notes,
            }
        )
    elapsed_s = time.perf_counter() - started_s
    factor = (last_s - split.start_s) / elapsed_s
    terminal.detail(
        f"{job.name}: {last_s - split.start_s:.1f} s of sound in {elapsed_s:.1f} s, {factor:.2g} x real time"
    )

"""Several recordings, one model: every input is opened first, then they are written down one after the other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mimo_cli.chat.named_files import user_path
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.commands.interrupts import Stopped, ctrl_c_waits
from mimo_cli.commands.loading import LoadedModel, announce, load_model, media_options
from mimo_cli.commands.model_choice import CONFIG_FILE
from mimo_cli.commands.sources import STDIN, Stdin
from mimo_cli.commands.transcribe_request import TranscribeRequest
from mimo_cli.commands.transcript_files import Targets, TranscriptFiles
from mimo_cli.commands.transcription import SpeechTask, Transcriber
from mimo_cli.dialogue import Dialogue, TurnOptions
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.errors import CapacityError, CheckpointError, MimoError, UsageError
from mimo_cli.media.audio import Recording, open_recording
from mimo_cli.media.audio_file import RawFormat
from mimo_cli.media.fetch import fetch, is_url
from mimo_cli.media.splitter import SplitOptions
from mimo_cli.terminal.console import Terminal, error_text
from mimo_cli.terminal.progress import Stage

SOME_FAILED = 5
_DEFAULT_CHUNK_S = 30.0


@dataclass(frozen=True)
class Job:
    """One input: the name to call it, its recording or what is wrong with it, and where its text goes."""

    name: str
    recording: Recording | MimoError
    targets: Targets


class SpeechJobs:
    """Runs one request. Inputs that fail are reported and passed over; a model that fails ends the run."""

    def __init__(self, request: TranscribeRequest, terminal: Terminal) -> None:
        """Raises UsageError for a part or cuts that make no sense."""
        self._request = request
        self._terminal = terminal
        speech, cutting = request.speech, request.cutting
        self._task = SpeechTask(speech.language, speech.translate, speech.prompt)
        self._options = TurnOptions(SamplingParams(temperature=speech.temp, seed=speech.seed), thinking=speech.think)
        self._split = SplitOptions(
            chunk_s=_DEFAULT_CHUNK_S if cutting.chunk is None else cutting.chunk,
            overlap_s=cutting.overlap or 0.0,
            skip_silence=cutting.vad,
            start_s=cutting.start or 0.0,
            end_s=cutting.end,
        )

    def run(self) -> int:
        """Write everything down; returns the exit code. Raises the error of a single input."""
        jobs = self._open_jobs()
        request, terminal = self._request, self._terminal
        failed = []
        with load_model(request.choice, request.model, terminal) as loaded:
            if not loaded.engine.core.has_audio:
                name = request.choice.name
                raise UsageError(f"model {name} cannot hear: it has no audio encoder", hint="-m with another model")
            dialogue = Dialogue(loaded.engine.speaker, context_tokens=request.model.ctx)
            announce(terminal, loaded, dialogue.timeline.max_tokens)
            for job in jobs:
                if len(jobs) > 1 and not job.targets.paths:
                    terminal.note(f"mimo: {job.name}")
                try:
                    self._transcribe(job, loaded, dialogue)
                except (CheckpointError, CapacityError):
                    raise
                except MimoError as err:
                    if len(jobs) == 1:
                        raise
                    failed.append(job.name)
                    terminal.error(_failure(job.name, err))
        if failed:
            terminal.line(f"mimo: {len(failed)} of {len(jobs)} failed: {', '.join(failed)}")
        return SOME_FAILED if failed else 0

    def _open_jobs(self) -> Sequence[Job]:
        """Open every input before the model is loaded; raises the first error if all fail."""
        request = self._request
        config = ModelConfig.from_file(request.choice.folder / CONFIG_FILE)
        options = media_options(config, request.choice).audio
        raw = request.cutting.stdin_format
        stdin_options = replace(options, raw=RawFormat.parse(raw)) if raw else options
        stdin = Stdin(self._terminal)
        jobs = []
        for name, targets in zip(request.files, request.targets, strict=True):
            recording: Recording | MimoError
            try:
                if name == STDIN:
                    recording = open_recording(stdin.claim("`-`"), stdin_options, name="standard input")
                elif is_url(name):
                    content = fetch(name, allow_net=request.cutting.allow_net)
                    recording = open_recording(content, options, name=f"`{name}`")
                else:
                    recording = open_recording(user_path(name), options, name=f"`{name}`")
            except MimoError as err:
                recording = err
            jobs.append(Job(name, recording, targets))
        errors = [job.recording for job in jobs if isinstance(job.recording, MimoError)]
        if len(errors) == len(jobs):
            for error in errors[1:]:
                self._terminal.error(error_text(str(error), error.hint))
            raise errors[0]
        return jobs

    def _keep(self, job: Job, files: TranscriptFiles, facts: dict[str, Any]) -> None:
        """Write what there is of a transcript that ends before its recording does, and say how far it reaches."""
        if files.reached_s is None:
            return
        facts["notes"].append(f"ended early, at {files.reached_s:.1f} s of the recording")
        try:
            with ctrl_c_waits():
                files.finish(facts)
        except MimoError as err:  # the text is on stdout; what ended the run is said after this
            self._terminal.error(error_text(str(err), err.hint))
            return
        names = " and ".join(f"`{path}`" for path in job.targets.paths)
        if names:
            reached = f"second {files.reached_s:.0f} of {facts['duration']:.0f}"
            self._terminal.line(f"mimo: what was written down so far is in {names}, up to {reached}")

    def _transcribe(self, job: Job, loaded: LoadedModel, dialogue: Dialogue) -> None:
        if isinstance(job.recording, MimoError):
            raise job.recording
        recording, start_s = job.recording, self._split.start_s
        sound_s = min(recording.duration_s, self._split.end_s or recording.duration_s) - start_s
        notes: list[str] = []

        def warn(text: str) -> None:
            notes.append(text)
            self._terminal.warn(f"{job.name}: {text}")

        for note in recording.notes:
            warn(note)
        started_s = time.perf_counter()
        files = TranscriptFiles(job.targets, job.name, self._request.style, self._terminal.write)
        with Stage(self._terminal, Path(job.name).name, "s", bar=True) as stage:
            transcriber = Transcriber(
                dialogue,
                self._task,
                self._options,
                on_progress=lambda done_s: stage.update(done_s - start_s, sound_s),
                warn=warn,
            )
            facts = {
                "duration": round(recording.duration_s, 3),
                "language": self._task.language,
                "translated_to": self._task.translate_to,
                "model": loaded.choice.name,
                "notes": notes,
            }
            try:
                for segment in transcriber.segments(recording, self._split):
                    files.add(segment)
            except (Exception, KeyboardInterrupt, Stopped):
                self._keep(job, files, facts)
                raise
            files.finish(facts)
        elapsed_s = time.perf_counter() - started_s
        speed = f"{sound_s / elapsed_s:.2g} x real time"
        self._terminal.detail(f"{job.name}: {sound_s:.1f} s of sound in {elapsed_s:.1f} s, {speed}")


def _failure(name: str, err: MimoError) -> str:
    """Return what went wrong with an input as one line that names it once."""
    message = str(err)
    return error_text(message if f"`{name}`" in message else f"{name}: {message}", err.hint)

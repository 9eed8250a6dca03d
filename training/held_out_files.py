"""Write the questions that `mimo eval` asks: held-out samples of every maker, as JSON lines and archives of media.

    python -m training.held_out_files [--out mimo_cli/evaluation/data] [--tasks pictures,words]

Pictures become PNG or JPEG, sounds Ogg (Opus) and here and there WAV of another rate, films MP4. Everything follows
from SEED, but for the synthesizers' own differences (see training.data.speech_clips).
"""

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import av
import cv2
import numpy as np
import soundfile

from training.data.acoustics import add_noise, resample
from training.data.catalogue import MAKERS
from training.data.dice import Dice
from training.data.held_out import NOISE_DB, SEED_BASE
from training.data.sample import Film, Picture, Sample, Sound
from training.data.speech import TRANSCRIBE
from training.data.speech_clips import STORED_RATE, Clip, Recipe, make_clips

SEED = SEED_BASE + 1
"""Not the samples that stages of training look at, which have the base itself."""

COUNTS = {"pictures": 200, "pairs": 40, "sounds": 60, "video": 200, "text": 270, "tools": 200, "mixed": 40}
MAIN_TEXT = {"lookup", "copy", "reverse", "sums", "system"}
"""Text tasks that make the score; the others are the group `other`."""

WORD_COUNTS = {"word": 150, "words": 50, "free": 70, "number": 40}
SPEECH_COUNTS = {"": 200, "unseen": 100, "noise": 100}
TEXT_SAMPLES = 250

_LARGE_SIDE = 256  # pixels; above it a picture is always a JPEG
_MAX_PNG_BYTES = 5_000
_JPEG_QUALITY = 76
_OPUS_LEVEL = 0.945  # about 20 kbit/s, at which 16 kHz speech sounds as it did
_WAV_RATES = (8000, 8000, 44_100, 48_000)
_MAX_WAV_S = 0.9


@dataclass(frozen=True)
class Question:
    """A sample with its place in the evaluation."""

    sample: Sample
    kind: str
    group: str = ""
    scoring: str = "exact"


class Archive:
    """The media of one task: named in order, stored as they are, with no date, so that equal media give equal files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: list[tuple[str, bytes]] = []

    def add(self, content: bytes, ending: str) -> str:
        """Take a medium and return its name."""
        name = f"{len(self._members):04d}.{ending}"
        self._members.append((name, content))
        return name

    def write(self) -> None:
        """Write the file, or remove it where there are no media."""
        self._path.unlink(missing_ok=True)
        if self._members:
            with ZipFile(self._path, "w", ZIP_STORED) as file:
                for name, content in self._members:
                    file.writestr(ZipInfo(name), content)


def encode_picture(pixels: np.ndarray, is_photo: bool) -> tuple[bytes, str]:
    """A PNG where that is small, or a JPEG."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    png = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    if not is_photo and max(pixels.shape) <= _LARGE_SIDE and len(png) <= _MAX_PNG_BYTES:
        return png, "png"
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes(), "jpg"


def encode_sound(sound: Sound, wav_rate: int | None = None) -> tuple[bytes, str]:
    """Ogg with Opus at 16 kHz, or 16-bit WAV at a rate of its own."""
    file = io.BytesIO()
    if wav_rate is not None:
        soundfile.write(file, resample(sound.samples, sound.sample_rate, wav_rate), wav_rate, "PCM_16", format="WAV")
        return file.getvalue(), "wav"
    samples = resample(sound.samples, sound.sample_rate, STORED_RATE)
    soundfile.write(file, samples, STORED_RATE, "OPUS", format="OGG", compression_level=_OPUS_LEVEL)
    return file.getvalue(), "ogg"


def encode_film(film: Film) -> tuple[bytes, str]:
    """An MP4 with H.264; the last row and column of odd sizes are doubled, which the format asks for."""
    frames = np.pad(film.frames, ((0, 0), (0, film.frames.shape[1] % 2), (0, film.frames.shape[2] % 2), (0, 0)), "edge")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=round(film.fps))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.options = {"crf": "23", "preset": "slow", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue(), "mp4"


def line(question: Question, name: str, archive: Archive, dice: Dice) -> dict[str, Any]:
    """The JSON object of a question, its media put into the archive."""
    sample = question.sample
    value: dict[str, Any] = {"id": name, "kind": question.kind}
    if question.group:
        value["group"] = question.group
    value["messages"] = [*_turns_before(sample), {"role": "user", "content": _content(sample, archive, dice)}]
    if sample.tools:
        value["tools"] = list(sample.tools)
    calls = [{"name": call, "arguments": arguments} for call, arguments in sample.tool_calls]
    if sample.tool_results:
        value["messages"].append({"role": "assistant", "tool_calls": [{"function": call} for call in calls]})
        value["messages"] += [{"role": "tool", "content": result} for result in sample.tool_results]
    if calls and not sample.tool_results:
        value["tool_calls"] = calls
    else:
        value["answers"] = [sample.answer]
    if question.scoring != "exact":
        value["scoring"] = question.scoring
    if sample.reasoning is not None:
        value["thinking"] = True
    return value


def _turns_before(sample: Sample) -> list[dict[str, Any]]:
    messages = [] if sample.system is None else [{"role": "system", "content": sample.system}]
    for asked, answered in sample.turns:
        if not isinstance(asked, str):
            raise ValueError("earlier turns with media have no place in the evaluation's files")
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return messages


def _content(sample: Sample, archive: Archive, dice: Dice) -> list[dict[str, str]]:
    return [_part(part, archive, dice) for part in sample.user]


def _part(part: Any, archive: Archive, dice: Dice) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Picture):
        return {"type": "image", "path": archive.add(*encode_picture(part.pixels, dice.chance(0.35)))}
    if isinstance(part, Sound):
        is_short = len(part.samples) < _MAX_WAV_S * part.sample_rate
        rate = dice.pick(_WAV_RATES) if is_short and dice.chance(0.12) else None
        return {"type": "audio", "path": archive.add(*encode_sound(part, rate))}
    return {"type": "video", "path": archive.add(*encode_film(part))}


def made(task: str, count: int, **settings: Any) -> Iterator[Sample]:
    """Held-out samples of a maker."""
    for number in range(count):  # each on its own, so that one may change without the others
        rng = np.random.default_rng([SEED, number, *task.encode(), *str(settings.get("kind", "")).encode()])
        yield MAKERS[task](rng, "held_out", **settings)


def questions(task: str) -> Iterator[Question]:
    """All questions of a task."""
    if task == "speech":
        yield from speech()
    elif task == "words":
        for kind, count in WORD_COUNTS.items():
            group = kind if kind in ("free", "number") else ""
            yield from (Question(sample, kind, group) for sample in _without_ink(kind, count))
    elif task == "pictures":
        for sample in made(task, COUNTS[task], sides=(96, 448), large_share=0.03):
            yield Question(sample, str(sample.facts["kind"]))
        for sample in made("pairs", COUNTS["pairs"]):
            yield Question(sample, str(sample.facts["kind"]), "pairs")
    elif task == "text":
        for sample in made(task, COUNTS[task]):
            yield Question(sample, sample.task, "" if sample.task in MAIN_TEXT else "other")
    elif task == "tools":
        for sample in made(task, COUNTS[task]):
            kind = str(sample.facts["kind"])
            yield Question(sample, kind if kind in ("idle", "result", "invented") else "call")
    else:
        for sample in made(task, COUNTS[task]):
            yield Question(sample, str(sample.facts.get("kind", "")))


def _without_ink(kind: str, count: int) -> Iterator[Sample]:
    asked_to_read = (sample for sample in made("words", 2 * count, kind=kind) if sample.facts["kind"] == kind)
    return islice(asked_to_read, count)


def speech() -> Iterator[Question]:
    """Phrases to be written down: known voices, voices never heard, and known voices in noise."""
    for group, count in SPEECH_COUNTS.items():
        recipe = Recipe(SEED + len(group), "held_out", unseen=group == "unseen")
        for number, clip in enumerate(make_clips(recipe, 0, count)):
            dice = Dice(np.random.default_rng([SEED, number, len(group)]))
            sound = recorded(clip, dice, NOISE_DB if group == "noise" else None)
            question = TRANSCRIBE.say(dice, "held_out")
            user = (question, sound) if dice.chance(0.2) else (sound, question)
            sample = Sample("speech", user, clip.text)
            yield Question(sample, clip.kind, group, "words")


def recorded(clip: Clip, dice: Dice, snr_db: float | None) -> Sound:
    """A clip with some silence around it, at some level, and with noise where it is asked for."""
    lead, tail = (round(dice.uniform(0.1, 0.4) * STORED_RATE) for _ in range(2))
    samples = np.pad(clip.samples, (lead, tail))
    if snr_db is not None:
        samples = add_noise(samples, snr_db, dice)
    level = 10 ** (dice.uniform(-15, -1) / 20)
    return Sound((samples * (level / np.abs(samples).max())).astype(np.float32), STORED_RATE)


def write_task(folder: Path, task: str) -> int:
    """Write the questions of a task; how many bytes they take."""
    archive = Archive(folder / f"{task}.zip")
    lines = []
    for number, question in enumerate(questions(task)):
        dice = Dice(np.random.default_rng([SEED, number]))
        lines.append(json.dumps(line(question, f"{task}-{number:03d}", archive, dice), ensure_ascii=False))
    path = folder / f"{task}.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    archive.write()
    media = folder / f"{task}.zip"
    return path.stat().st_size + (media.stat().st_size if media.exists() else 0)


def write_text(path: Path) -> None:
    """Write the text whose perplexity is measured: questions of the text maker with their answers, in plain words."""
    pieces = []
    for sample in made("text", COUNTS["text"] + TEXT_SAMPLES):
        if not sample.turns and sample.system is None and not sample.tools and len(sample.text) < 400:
            pieces.append(f"{sample.text}\n{sample.answer}\n")
    path.write_text("\n".join(pieces[-TEXT_SAMPLES:]), "utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.held_out_files", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("mimo_cli/evaluation/data"))
    parser.add_argument("--tasks", default="pictures,words,speech,sounds,video,text,tools,mixed")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for task in args.tasks.split(","):
        size_bytes = write_task(args.out, task)
        print(f"{task}: {size_bytes / 1e6:.2f} MB", flush=True)
        if task == "text":
            write_text(args.out / "text.txt")


if __name__ == "__main__":
    main()

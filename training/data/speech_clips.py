"""Speech clips: spoken words and phrases made once, kept as compact shards, read at random.

A folder holds `clips_00000.npy` (int16, 16 kHz, clips one after another) and `clips_00000.json` (for each clip start
and length in samples, text, kind, voice, end of every word in milliseconds or null). Making is restartable: a shard is
determined by the seed and its number (but for espeak-ng, which goes on from the phase of its last wave, so that a clip
made again differs by some samples), and one that exists is kept.

python -m training.data.speech_clips OUT_DIR --count 20000 --seed 1 [--split held_out --unseen]
"""

import argparse
import json
import os
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from training.data.acoustics import augment, loud_part, resample
from training.data.dice import Dice
from training.data.phrases import make_phrase
from training.data.sample import Split
from training.data.vocabulary import SPOKEN_ALONE
from training.data.voices import HELD_OUT_VOICES, Request, draw_voice, synthesise

__all__ = ["Clip", "ClipFolder", "Recipe", "augment", "make_clips", "write_shard"]

STORED_RATE = 16_000
CLIPS_A_SHARD = 250
WORD_SHARE, JOINED_SHARE = 0.36, 0.10  # the rest are phrases of connected speech


@dataclass(frozen=True)
class Recipe:
    """What a folder of clips is made from. `unseen` takes only the voices training never hears."""

    seed: int
    split: Split = "train"
    unseen: bool = False


@dataclass(frozen=True)
class Clip:
    """A clip: `samples` float32 at 16 kHz; `ends_s` the end of each word, None where not known."""

    samples: np.ndarray
    text: str
    kind: str
    voice: str
    ends_s: tuple[float, ...] | None


@dataclass(frozen=True)
class _Plan:
    """A clip to be made: what has to be spoken, and the pauses in seconds between separately spoken words."""

    kind: str
    requests: list[Request]
    pauses_s: list[float]


def _plan(dice: Dice, recipe: Recipe) -> _Plan:
    voice = dice.pick(HELD_OUT_VOICES) if recipe.unseen else draw_voice(dice)
    usual = dice.chance(0.25)  # strangers use a synthesizer's own settings
    speed = 1.0 if usual else dice.uniform(0.75, 1.35)
    pitch = 0.0 if usual else dice.uniform(-1, 1)
    kind = dice.uniform()
    if kind < WORD_SHARE:
        return _Plan("word", [Request(dice.pick(SPOKEN_ALONE), voice, speed, pitch)], [])
    if kind < WORD_SHARE + JOINED_SHARE:
        spoken = [dice.pick(SPOKEN_ALONE) for _ in range(dice.integer(2, 5))]
        pauses = [dice.uniform(0.02, 0.3) for _ in spoken[1:]]
        return _Plan("joined", [Request(word, voice, speed, pitch) for word in spoken], pauses)
    return _Plan("phrase", [Request(make_phrase(dice, recipe.split), voice, speed, pitch)], [])


def _join(plan: _Plan, pieces: list[tuple[np.ndarray, tuple[float, ...] | None]]) -> Clip:
    """One clip of the pieces, the pauses between them, levelled to a peak of 0.9."""
    blocks: list[np.ndarray] = []
    ends: list[float] | None = []
    length = 0
    for i, (samples, piece_ends) in enumerate(pieces):
        if i:
            pause = np.zeros(round(plan.pauses_s[i - 1] * STORED_RATE), np.float32)
            blocks.append(pause)
            length += len(pause)
        if ends is not None:
            ends = None if piece_ends is None else [*ends, *(length / STORED_RATE + end for end in piece_ends)]
        blocks.append(samples)
        length += len(samples)
    samples = np.concatenate(blocks)
    samples = samples * (0.9 / max(1e-4, float(np.abs(samples).max())))
    text = " ".join(request.text for request in plan.requests)
    return Clip(samples, text, plan.kind, plan.requests[0].voice, None if ends is None else tuple(ends))


def make_clips(recipe: Recipe, shard: int, count: int) -> list[Clip]:
    """The clips of one shard: the first `count` of those that the recipe and the shard's number determine."""
    dice = Dice(np.random.default_rng([recipe.seed, shard, recipe.split == "train", recipe.unseen]))
    plans = [_plan(dice, recipe) for _ in range(count)]
    utterances = iter(synthesise([request for plan in plans for request in plan.requests]))
    clips = []
    for plan in plans:
        pieces = []
        for _ in plan.requests:
            spoken = next(utterances)
            samples = resample(spoken.samples, spoken.sample_rate, STORED_RATE)
            part = loud_part(samples, STORED_RATE)
            ends = _shift(spoken.ends_s, part)
            pieces.append((samples[part], ends))
        clips.append(_join(plan, pieces))
    return clips


def _shift(ends_s: tuple[float, ...] | None, part: slice) -> tuple[float, ...] | None:
    """Word ends counted from the start of the kept part; the last word ends with it."""
    if ends_s is None:
        return None
    last = (part.stop - part.start) / STORED_RATE
    shifted = [min(max(0.0, end - part.start / STORED_RATE), last) for end in ends_s]
    return (*shifted[:-1], last)


def write_shard(folder: Path, recipe: Recipe, shard: int, count: int) -> None:
    """Make a shard unless it exists. The index is put in place last, so half a shard is never seen."""
    index = folder / f"clips_{shard:05d}.json"
    if index.exists():
        return
    clips = make_clips(recipe, shard, count)
    entries, start = [], 0
    for clip in clips:
        ends = None if clip.ends_s is None else [round(1000 * end) for end in clip.ends_s]
        fields = {"start": start, "length": len(clip.samples), "text": clip.text, "kind": clip.kind}
        entries.append({**fields, "voice": clip.voice, "ends_ms": ends})
        start += len(clip.samples)
    samples = np.concatenate([clip.samples for clip in clips])
    np.save(index.with_suffix(".npy"), np.round(samples * 32767).astype(np.int16))
    unfinished = index.with_suffix(".part")
    unfinished.write_text(json.dumps(entries))
    unfinished.rename(index)


class ClipFolder:
    """The finished clips of a folder; samples stay on disk, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._shards: list[np.ndarray] = []
        self._entries: list[tuple[int, dict]] = []
        for index in sorted(Path(folder).glob("clips_*.json")):
            self._entries.extend((len(self._shards), entry) for entry in json.loads(index.read_text()))
            self._shards.append(np.load(index.with_suffix(".npy"), mmap_mode="r"))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> Clip:
        shard, entry = self._entries[number]
        samples = self._shards[shard][entry["start"] : entry["start"] + entry["length"]]
        ends = None if entry["ends_ms"] is None else tuple(end / 1000 for end in entry["ends_ms"])
        return Clip(samples.astype(np.float32) / 32767, entry["text"], entry["kind"], entry["voice"], ends)

    def of_kind(self, *kinds: str) -> list[int]:
        """The numbers of the clips of these kinds: word, joined, phrase."""
        return [i for i, (_, entry) in enumerate(self._entries) if entry["kind"] in kinds]


def _work(job: tuple[Path, Recipe, int, int]) -> int:
    write_shard(*job)
    return job[2]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.data.speech_clips", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("train", "held_out"), default="train")
    parser.add_argument("--unseen", action="store_true", help="only voices that training never hears")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(args.seed, args.split, args.unseen)
    starts = range(0, args.count, CLIPS_A_SHARD)
    jobs = [(args.folder, recipe, i, min(CLIPS_A_SHARD, args.count - start)) for i, start in enumerate(starts)]
    with Pool(args.processes, initializer=os.nice, initargs=(10,)) as pool:
        for done, _ in enumerate(pool.imap_unordered(_work, jobs), 1):
            print(f"{done}/{len(jobs)} shards", flush=True)


if __name__ == "__main__":
    main()

"""Pools: samples with media, encoded once by the frozen towers, asked about a few times, then replaced.

Pictures and films become rows of the vision tower, recordings become codes; both go on a shelf under a number, and the
prompts refer to the number. Refilling happens a chunk at a time, because the towers are quick only on many at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mimo_cli.model.audio_tokenizer import AudioTokenizer
from training.data.sample import Picture, Sample, Split, dialogue
from training.media import Ready, ReadyFilm, ReadyGroup, ReadyPicture, ReadySound
from training.precision import autocast
from training.prompts import MediaStub, Prompter
from training.sight import MAX_PATCHES, Sight, fill_up
from training.sources import Group, Shelf
from training.stages.audio import stack_batch

Fetch = Callable[[np.random.Generator, Split], list[ReadyGroup]]
CHUNK = 48
FRAME_PATCHES = 48


@dataclass
class Encoder:
    """The frozen towers and the shelf their results go to."""

    prompter: Prompter
    sight: Sight
    codec: AudioTokenizer
    shelf: Shelf

    @torch.no_grad()
    def shelve(self, media: list[Ready]) -> list[MediaStub]:
        """Encode media and put them on the shelf; the stubs stand in the order of the media."""
        pictures = [medium for medium in media if isinstance(medium, ReadyPicture)]
        films = [medium for medium in media if isinstance(medium, ReadyFilm)]
        sounds = [medium for medium in media if isinstance(medium, ReadySound)]
        seen = iter(self._encode([p.patches for p in pictures], [p.grid for p in pictures], MAX_PATCHES))
        steps = [(step, film.grid) for film in films for step in film.steps]
        watched = iter(self._encode([step for step, _ in steps], [grid for _, grid in steps], FRAME_PATCHES))
        heard = iter(self._hear([sound.mel for sound in sounds]))
        stubs = []
        for medium in media:
            if isinstance(medium, ReadySound):
                codes = next(heard)
                stubs.append(MediaStub(self.shelf.add_codes(codes), "audio", -(-len(codes) // 4)))
            elif isinstance(medium, ReadyPicture):
                rows = next(seen)
                stubs.append(MediaStub(self.shelf.add_rows(rows), "image", len(rows)))
            else:
                rows = torch.cat([next(watched) for _ in medium.steps])
                stubs.append(MediaStub(self.shelf.add_rows(rows), "video", len(rows), medium.times_s))
        return stubs

    def _encode(self, patches: list[np.ndarray], grids: list[tuple[int, int]], size: int) -> list[Tensor]:
        """Rows of some frames, through chunks of one size (what is missing is blank)."""
        found: list[Tensor] = []
        for start in range(0, len(patches), CHUNK):
            some, shapes = patches[start : start + CHUNK], grids[start : start + CHUNK]
            blank = [np.zeros((4, some[0].shape[1]), np.float32)] * (CHUNK - len(some))
            filled = fill_up([*some, *blank], max(size, max(map(len, some))))
            rows = self.sight.rows(filled, [*shapes, *[(2, 2)] * len(blank)]).bfloat16()
            found += [row[: h * w // 4].clone() for row, (h, w) in zip(rows, shapes, strict=False)]
        return found

    def _hear(self, mels: list[np.ndarray]) -> list[Tensor]:
        """Codes [K, channels] of every recording; neighbours in length go together."""
        found: dict[int, Tensor] = {}
        order = sorted(range(len(mels)), key=lambda i: len(mels[i]))
        for part in (order[start : start + 16] for start in range(0, len(order), 16)):
            padded, lengths = stack_batch([mels[i] for i in part])
            with autocast(self.codec.conv1.weight):
                features = self.codec.features(padded, lengths).float()
            for i, row, length in zip(part, features, lengths.tolist(), strict=True):
                found[i] = self.codec.quantize(row[: -(-length // 4)])
        return [found[i] for i in range(len(mels))]


class Pool:
    """A source of groups about media: each group is served `uses` times before it is dropped.

    `fetch` gives a chunk of groups whose media are ready for the towers. A chunk takes seconds: `top_up` lets processes
    that wait for each other after every step draw theirs at the same time.
    """

    def __init__(self, encoder: Encoder, fetch: Fetch, *, size: int = 240, uses: int = 3) -> None:
        self.encoder, self.fetch, self.size, self.uses = encoder, fetch, size, uses
        self._entries: dict[Split, list[tuple[Group, list[int], int]]] = {"train": [], "held_out": []}
        self._dropped: list[list[int]] = []

    def __call__(self, rng: np.random.Generator, split: Split) -> Group:
        """Satisfy Source."""
        entries = self._entries[split]
        while len(entries) < (self.size // 2 if split == "train" else 1):
            self._refill(rng, split)
        number = int(rng.integers(len(entries)))
        group, uids, left = entries[number]
        if left > 1:
            entries[number] = (group, uids, left - 1)
        else:
            entries[number] = entries[-1]
            entries.pop()
            self._drop_later(uids)
        return group

    def top_up(self, rng: np.random.Generator) -> None:
        """Draw until there are `size` groups to train on."""
        while len(self._entries["train"]) < self.size:
            self._refill(rng, "train")

    def _drop_later(self, uids: list[int]) -> None:
        """Take media off the shelf once no batch under construction can still need them."""
        self._dropped.append(uids)
        while len(self._dropped) > 2000:
            for uid in self._dropped.pop(0):
                self.encoder.shelf.rows.pop(uid, None)
                self.encoder.shelf.codes.pop(uid, None)

    def _refill(self, rng: np.random.Generator, split: Split) -> None:
        made = self.fetch(rng, split)
        stubs = iter(self.encoder.shelve([medium for group in made for medium in group.media]))
        for group in made:
            mine = [next(stubs) for _ in group.media]
            examples = [
                self.encoder.prompter.example(sample, [mine[i] for i in used])
                for sample, used in zip(group.samples, group.used, strict=True)
            ]
            uids = [stub.uid for stub in mine]
            self._entries[split].append((examples, uids, self.uses if split == "train" else 1))


def scene_group(rng: np.random.Generator, split: Split, asked: int = 4) -> list[Sample]:
    """One scene, several questions about it; now and then as one dialogue, which shows the picture once."""
    from training.data.dice import Dice
    from training.data.pictures import QUESTIONS, draw_kind
    from training.data.scenes import draw_scene, paint

    dice = Dice(rng)
    scene = draw_scene(dice, split, dice.pick((1, 1, 2, 2, 3, 3, 4, 5)))
    picture = Picture(paint(scene, dice))
    samples: list[Sample] = []
    for _ in range(4 * asked):
        kind = draw_kind(dice)
        found = QUESTIONS[kind][0](scene, dice, split)
        if found is not None and len(samples) < asked:
            samples.append(Sample(f"pictures {kind}", (picture, found[0]), found[1]))
    if len(samples) > 1 and dice.chance(0.2):
        later = [replace(sample, task="pictures in a dialogue", user=sample.user[1:]) for sample in samples[1:]]
        return dialogue([samples[0], *later])
    return samples

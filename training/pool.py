"""Pools: samples with media, encoded once by the frozen towers, asked about a few times, then replaced.

Pictures and films become rows of the vision tower, recordings become codes; both go on a shelf under a number, and the
prompts refer to the number. Refilling happens a chunk at a time, because the towers are quick only on many at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mimo_cli.chat.media_options import MediaOptions
from mimo_cli.media.image import preprocess_image
from mimo_cli.media.mel import log_mel
from mimo_cli.media.video import preprocess_video
from mimo_cli.model.audio_tokenizer import AudioTokenizer
from training.data.sample import Film, Picture, Sample, Sound, Split
from training.prompts import MediaStub, Prompter
from training.sight import MAX_PATCHES, Sight, fill_up
from training.sources import Group, Shelf
from training.stages.audio import stack_batch, to_model_rate

MakeGroup = Callable[[np.random.Generator, Split], list[Sample]]
CHUNK = 48
FRAME_PATCHES = 64


@dataclass
class Encoder:
    """The frozen towers and the shelf their results go to."""

    prompter: Prompter
    sight: Sight | None
    codec: AudioTokenizer | None
    shelf: Shelf
    options: MediaOptions = field(init=False)

    def __post_init__(self) -> None:
        self.options = MediaOptions.of_checkpoint(self.prompter.config.processor)

    @torch.no_grad()
    def shelve(self, media: list[Picture | Sound | Film]) -> list[MediaStub]:
        """Encode media and put them on the shelf; the stubs stand in the order of the media."""
        stubs: dict[int, MediaStub] = {}
        pictures = [i for i, medium in enumerate(media) if isinstance(medium, Picture)]
        films = [i for i, medium in enumerate(media) if isinstance(medium, Film)]
        sounds = [i for i, medium in enumerate(media) if isinstance(medium, Sound)]
        for i, rows in zip(pictures, self._see([media[i].pixels for i in pictures]), strict=True):  # type: ignore[union-attr]
            stubs[i] = MediaStub(self.shelf.add_rows(rows), "image", len(rows))
        for i, stub in zip(films, self._watch([media[i] for i in films]), strict=True):  # type: ignore[misc]
            stubs[i] = stub
        for i, codes in zip(sounds, self._hear([media[i] for i in sounds]), strict=True):  # type: ignore[misc]
            stubs[i] = MediaStub(self.shelf.add_codes(codes), "audio", -(-len(codes) // 4))
        return [stubs[i] for i in range(len(media))]

    def _see(self, pictures: list[np.ndarray]) -> list[Tensor]:
        """Rows [n, H] of every picture."""
        patches, grids = [], []
        for pixels in pictures:
            values, grid = preprocess_image(pixels, self.options.image)
            patches.append(values.reshape(len(values), 3, 2, -1)[:, :, 0].reshape(len(values), -1))
            grids.append((int(grid[0, 1]), int(grid[0, 2])))
        return self._encode(patches, grids, MAX_PATCHES)

    def _watch(self, films: list[Film]) -> list[MediaStub]:
        """Put the rows of films on the shelf; the temporal steps of all of them go through the tower together."""
        patches, grids, times = [], [], []
        for film in films:
            values, grid, times_s = preprocess_video(film.frames, film.fps, self.options.video)
            steps, height, width = grid[0].tolist()
            patches += np.split(values, steps)
            grids += [(height, width)] * steps
            times.append(tuple(times_s[:: self.options.video.pixels.temporal_patch_size].tolist()))
        rows, stubs = iter(self._encode(patches, grids, FRAME_PATCHES)), []
        for steps_s in times:
            mine = torch.cat([next(rows) for _ in steps_s])
            stubs.append(MediaStub(self.shelf.add_rows(mine), "video", len(mine), steps_s))
        return stubs

    def _encode(self, patches: list[np.ndarray], grids: list[tuple[int, int]], size: int) -> list[Tensor]:
        """Rows of some frames, through chunks of one size (what is missing is blank)."""
        assert self.sight is not None
        found: list[Tensor] = []
        for start in range(0, len(patches), CHUNK):
            some, shapes = patches[start : start + CHUNK], grids[start : start + CHUNK]
            blank = [np.zeros((4, some[0].shape[1]), np.float32)] * (CHUNK - len(some))
            filled = fill_up([*some, *blank], max(size, max(map(len, some))))
            rows = self.sight.rows(filled, [*shapes, *[(2, 2)] * len(blank)]).bfloat16()
            found += [row[: h * w // 4].clone() for row, (h, w) in zip(rows, shapes, strict=False)]
        return found

    def _hear(self, sounds: list[Sound]) -> list[Tensor]:
        """Codes [K, channels] of every recording; neighbours in length go together."""
        if not sounds:
            return []
        assert self.codec is not None
        mels = [log_mel(to_model_rate(sound.samples, sound.sample_rate)) for sound in sounds]
        order = np.argsort([len(mel) for mel in mels])
        found: dict[int, Tensor] = {}
        for part in np.array_split(order, max(1, len(order) // 16)):
            padded, lengths = stack_batch([mels[i] for i in part])
            with torch.autocast(self.codec.conv1.weight.device.type, torch.bfloat16):
                features = self.codec.features(padded, lengths).float()
            for i, row, length in zip(part.tolist(), features, lengths.tolist(), strict=True):
                found[i] = self.codec.quantize(row[: -(-length // 4)])
        return [found[i] for i in range(len(sounds))]


class Pool:
    """A source of groups about media: each group is served `uses` times before it is dropped."""

    def __init__(self, encoder: Encoder, make: MakeGroup, *, size: int = 480, uses: int = 3) -> None:
        self.encoder, self.make, self.size, self.uses = encoder, make, size, uses
        self._entries: dict[Split, list[tuple[Group, list[int], int]]] = {"train": [], "held_out": []}
        self._dropped: list[list[int]] = []

    def __call__(self, rng: np.random.Generator, split: Split) -> Group:
        """Satisfy Source."""
        entries = self._entries[split]
        if len(entries) < (self.size if split == "train" else 1):
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

    def _drop_later(self, uids: list[int]) -> None:
        """Take media off the shelf once no batch under construction can still need them."""
        self._dropped.append(uids)
        while len(self._dropped) > 2000:
            for uid in self._dropped.pop(0):
                self.encoder.shelf.rows.pop(uid, None)
                self.encoder.shelf.codes.pop(uid, None)

    def _refill(self, rng: np.random.Generator, split: Split) -> None:
        made = [self.make(rng, split) for _ in range(CHUNK)]
        media = {
            id(part): part for group in made for sample in group for part in sample.user if not isinstance(part, str)
        }
        stubs = dict(zip(media, self.encoder.shelve(list(media.values())), strict=True))
        for group in made:
            examples, uids = [], []
            for sample in group:
                own = [stubs[id(part)] for part in sample.user if not isinstance(part, str)]
                examples.append(self.encoder.prompter.example(sample, own))
                uids += [stub.uid for stub in own]
            self._entries[split].append((examples, uids, self.uses if split == "train" else 1))


def scene_group(rng: np.random.Generator, split: Split, asked: int = 4) -> list[Sample]:
    """One scene, several questions about it."""
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
    return samples

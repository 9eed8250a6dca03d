"""Stage `vision`: the vision tower learns to see with direct heads, before any language.

Scenes of drawn objects from the first step; rendered words join when the tower knows shapes.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimo_cli.media.image import preprocess_image
from mimo_cli.media.options import ImageOptions
from mimo_cli.model.vision import VisionTower
from training.architecture import IMAGE_PIXELS
from training.data.dice import Dice
from training.data.fonts import faces
from training.data.sample import Split
from training.data.scenes import draw_scene, paint
from training.data.words import draw_text, render, render_sheet
from training.feeder import Feeder
from training.heads import VisionHeads, unit_labels
from training.optimizer import Optimizer
from training.run import Run, schedule
from training.settings import VisionSettings
from training.sight import MAX_PATCHES, Sight, fill_up

EASE = 0.4  # share of plain training pictures
SHEET_SHARE = 0.7  # of the training pictures with text
OPTIONS = ImageOptions(min_pixels=IMAGE_PIXELS[0], max_pixels=IMAGE_PIXELS[1])


def still_patches(pixels: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """One half of each patch of a still picture, [P, 768] float32, and the picture's height and width in patches."""
    values, grid = preprocess_image(pixels, OPTIONS)
    _, height, width = grid[0].tolist()
    return values.reshape(len(values), 3, 2, -1)[:, :, 0].reshape(len(values), -1), (height, width)


Example = tuple[np.ndarray, tuple[int, int], dict[str, Tensor]]


def draw_scene_example(rng: np.random.Generator, split: Split) -> Example:
    """Patches [P, 768] of a scene, its height and width in patches, and its labels."""
    dice = Dice(rng)
    while True:
        count = dice.integer(1, 4) if dice.chance(0.5) else dice.integer(5, 9)
        scene = draw_scene(dice, split, count)
        patches, grid = still_patches(paint(scene, dice, ease=EASE if split == "train" else 0.0))
        if len(patches) <= MAX_PATCHES:
            return patches, grid, unit_labels(scene.labels(), grid[0] // 2, grid[1] // 2)


def draw_text_example(rng: np.random.Generator, split: Split) -> Example:
    """The same of a rendered text."""
    dice = Dice(rng)
    while True:
        if split == "train" and dice.chance(SHEET_SHARE):
            pixels, facts = render_sheet(dice, split, ease=EASE)
        else:
            text = draw_text(dice, dice.pick(("word", "free", "free", "number", "words")))
            pixels, facts = render(text, dice.pick(faces(split == "held_out")), dice, large=dice.chance(0.04))
        patches, grid = still_patches(pixels)
        if len(patches) <= MAX_PATCHES:
            return patches, grid, unit_labels(facts, grid[0] // 2, grid[1] // 2)


MAKERS = {"scenes": draw_scene_example, "texts": draw_text_example}


def stack(examples: list[Example]) -> tuple[Tensor, list[tuple[int, int]], dict[str, Tensor]]:
    """Patches [N, P, 768], height and width of each picture in patches, labels stacked over N."""
    labels = [one for _, _, one in examples]
    stacked = {name: torch.stack([one[name] for one in labels]) for name in labels[0]}
    return fill_up([patches for patches, _, _ in examples]), [grid for _, grid, _ in examples], stacked


def draw_batch(
    rng: np.random.Generator, split: Split, count: int, word_share: float, feeder: Feeder | None = None
) -> tuple[Tensor, list[tuple[int, int]], dict[str, Tensor]]:
    """A batch of scenes and texts; a feeder, if there is one, gives CHUNK of one kind at a time, cut to `count`."""
    if feeder is not None:
        texts = round(count * word_share)
        chunks = feeder.take("scenes")[: count - texts] + (feeder.take("texts")[:texts] if texts else [])
        return stack(chunks)
    kinds = rng.random(count) < word_share
    return stack([(draw_text_example if kind else draw_scene_example)(rng, split) for kind in kinds])


class VisionStage:
    """Tower and heads, trained together."""

    feeder: Feeder | None = None

    def __init__(self, tower: VisionTower, folder: Path, settings: VisionSettings, seed: int) -> None:
        torch.manual_seed(seed)
        self.tower, self.settings, self.seed = tower, settings, seed
        self.device = tower.patch_embed.proj.weight.device
        self.heads = VisionHeads(tower.config.out_hidden_size, tower.config.hidden_size).to(self.device)
        self.sight = Sight(tower)
        named = dict(tower.named_parameters())
        matrices = [p for name, p in named.items() if p.dim() == 2 and name.startswith(("blocks", "merger"))]
        taken = set(map(id, matrices))
        others = [p for p in (*named.values(), *self.heads.parameters()) if id(p) not in taken]
        rates = {name: getattr(settings, name) for name in ("muon_rate", "adam_rate", "weight_decay")}
        self.optimizer = Optimizer(matrices, others, **rates)
        self.run = Run(folder, self.state, self.restore, settings.steps)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs; data are drawn anew from the step's number."""
        parts: dict[str, Any] = {"tower": self.tower, "heads": self.heads, "optimizer": self.optimizer}
        return {name: part.state_dict() for name, part in parts.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave; a tower alone is where a new run starts."""
        for name in ("tower", "heads", "optimizer"):
            if name in state:
                getattr(self, name).load_state_dict(state[name])

    def train(self) -> None:
        """Run to the last step, reporting losses every 20 steps and held-out shares every 200."""
        settings, run = self.settings, self.run
        run.resume()
        averages: dict[str, float] = {}
        while True:
            rng = np.random.default_rng((self.seed, run.step))
            words = settings.word_share if run.step >= settings.words_from else 0.0
            patches, grids, labels = draw_batch(rng, "train", settings.batch, words, self.feeder)
            losses = self._losses(patches, grids, labels)
            torch.stack([settings.weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
            self.optimizer.step(schedule(run.step, settings.steps))
            shares = {f"right_{name}": share for name, share in self.heads.correct.items() if share == share}
            for name, value in {**{f"loss_{name}": loss.item() for name, loss in losses.items()}, **shares}.items():
                averages[name] = 0.9 * averages.get(name, value) + 0.1 * value
            going = run.tick()
            if run.step % 20 == 0:
                run.report(**averages)
            if run.step % 200 == 0 or not going:
                run.report(**self.evaluate(words))
            if not going:
                return

    def _losses(self, patches: Tensor, grids: list[tuple[int, int]], labels: dict[str, Tensor]) -> dict[str, Tensor]:
        states = self.sight.patch_states(patches, grids)
        return self.heads.losses(states, self.sight.merge(states), self._moved(labels))

    def _moved(self, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: label.to(self.device) for name, label in labels.items()}

    @torch.no_grad()
    def evaluate(self, word_share: float) -> dict[str, float]:
        """Shares of right labels on held-out pictures."""
        rng = np.random.default_rng((self.seed, 999))
        totals: dict[str, list[float]] = defaultdict(list)
        for _ in range(4):
            patches, grids, labels = draw_batch(rng, "held_out", self.settings.batch, word_share)
            self._losses(patches, grids, labels)
            for name, share in self.heads.correct.items():
                if share == share:
                    totals[name].append(share)
        return {f"held_out_{name}": sum(values) / len(values) for name, values in totals.items()}

"""The trainer's vision tower is the runtime's, for pictures of different shapes in one batch."""

import numpy as np
import torch

from mimo_cli.model.vision import VisionTower
from training.prompts import Prompter
from training.sight import MAX_PATCHES, Sight, fill_up
from training.stages.vision import still_patches


def test_rows_equal_those_of_the_package(prompter: Prompter) -> None:
    torch.manual_seed(0)
    assert prompter.config.vision is not None
    tower = VisionTower(prompter.config.vision)
    with torch.no_grad():
        for block in tower.blocks:
            if block.attn.sinks is not None:
                block.attn.sinks.normal_()
    rng = np.random.default_rng(0)
    sizes = ((96, 96), (200, 300), (64, 380))
    pictures = [still_patches(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    grids = [grid for _, grid in pictures]
    assert len(set(grids)) == 3
    with torch.no_grad():
        found = Sight(tower, torch.float32, compiled=False).rows(fill_up([p for p, _ in pictures]), grids)
        for row, (patches, (height, width)) in zip(found, pictures, strict=True):
            whole = torch.from_numpy(patches).view(-1, 3, 1, 256).expand(-1, 3, 2, 256).reshape(len(patches), -1)
            # Masks instead of tiles: sums in another order, float32.
            torch.testing.assert_close(
                row[: len(patches) // 4], tower(whole, [(1, height, width)]), atol=2e-5, rtol=1e-4
            )


def test_no_picture_of_any_size_becomes_more_patches_than_a_batch_holds() -> None:
    for height in range(96, 1025, 61):
        for width in range(96, 1025, 53):
            patches, _ = still_patches(np.zeros((height, width, 3), np.uint8))
            assert len(patches) // 4 + 8 >= 20 and len(patches) <= MAX_PATCHES

"""Direct heads for the supervised start of the vision tower; thrown away afterwards.

Every row of the tower (a unit of 32 x 32 pixels) must say what stands there; a small reader spells rendered words.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.shapes import COLOURS, SHAPES
from training.sight import MAX_PATCHES

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SLOTS = 10
UNITS = MAX_PATCHES // 4
IGNORE = -100


class VisionHeads(nn.Module):
    """Linear heads on rows [N, U, H] and on states of patches, and a reader whose slots look for a word's letters."""

    def __init__(self, width: int, patch_width: int) -> None:
        super().__init__()
        self.shape = nn.Linear(width, len(SHAPES) + 1)
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.centre = nn.Linear(width, 2)
        self.place = nn.Linear(width, 6)
        self.count = nn.Linear(width, 10)
        self.slots = nn.Parameter(torch.randn(SLOTS, width) * 0.05)
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)
        self.letters = nn.Linear(width, len(ALPHABET) + 1)
        self.glyphs = nn.Linear(width, len(ALPHABET) + 1)
        self.patch_glyphs = nn.Linear(patch_width, len(ALPHABET) + 1)
        self.patch_shapes = nn.Linear(patch_width, len(SHAPES) + 1)
        for head in (self.glyphs, self.patch_glyphs, self.patch_shapes):
            nn.init.zeros_(head.weight)

    def spell(self, rows: Tensor, real: Tensor) -> Tensor:
        """Letters [N, SLOTS, alphabet + end] of the word in each picture; real [N, U] says which rows are its own."""
        keys, values = self.keys(rows).unflatten(-1, (4, -1)).transpose(1, 2), self.values(rows).unflatten(-1, (4, -1))
        slots = self.slots.unflatten(-1, (4, -1)).transpose(0, 1)
        slots = slots.expand(len(rows), -1, -1, -1)
        found = functional.scaled_dot_product_attention(
            slots, keys, values.transpose(1, 2), attn_mask=real[:, None, None, :]
        )
        return self.letters(functional.gelu(found.transpose(1, 2).flatten(2)))

    def losses(self, states: Tensor, rows: Tensor, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross entropies by head; states [N, P, C] of patches; labels: `unit_labels`, IGNORE where unknown."""
        rows, real = rows.float(), labels["row"] != IGNORE
        states = functional.layer_norm(states, states.shape[-1:])  # they grow from block to block
        mean = (rows * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
        place_row, place_column = self.place(rows).split(3, dim=-1)
        scores = {
            "shape": self.shape(rows),
            "colour": self.colour(rows),
            "centre": self.centre(rows),
            "row": place_row,
            "column": place_column,
            "count": self.count(mean),
            "letters": self.spell(rows, real),
            "patch_shape": self.patch_shapes(states),
        }
        labels = {**labels, "patch_shape": labels["shape"].repeat_interleave(4, 1)}
        self.correct = {name: _share_right(score, labels[name]) for name, score in scores.items()}
        losses = {
            name: functional.cross_entropy(score.flatten(0, -2), labels[name].flatten(), ignore_index=IGNORE)
            for name, score in scores.items()
            if bool((labels[name] != IGNORE).any())
        }
        ink = labels["ink"]
        if bool((ink.sum(-1) > 0).any()):
            units = ink.unflatten(1, (-1, 4)).mean(2)
            for name, score, target in (
                ("glyph", self.glyphs(rows), units),
                ("patch_glyph", self.patch_glyphs(states), ink),
            ):
                losses[name], self.correct[name] = _soft(score, target)
        return losses


def _soft(scores: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """Cross entropy with shares [N, X, 1 + alphabet] of what is seen; how often the letter of most ink is named."""
    letters = target[..., 1:].sum(-1)
    weight = (letters + 0.1) * (target.sum(-1) > 0)
    each = -(target * functional.log_softmax(scores, -1)).sum(-1)
    clear = letters > 0.4
    right = scores[..., 1:].argmax(-1) == target[..., 1:].argmax(-1)
    return (each * weight).sum() / weight.sum(), float(right[clear].float().mean())


def _share_right(scores: Tensor, labels: Tensor) -> float:
    """Share of right guesses; of units only those where something stands; of words whole words."""
    right, counted = scores.argmax(-1) == labels, labels != IGNORE
    if labels.dim() == 2 and labels.shape[1] == SLOTS:
        words = counted.any(1)
        return float((right | ~counted).all(1)[words].float().mean())
    some = counted & (labels > 0) if labels.dim() == 2 else counted
    return float(right[some].float().mean())


def unit_labels(facts: dict, height: int, width: int) -> dict[str, Tensor]:
    """Labels of one picture of height x width units from its maker's facts."""
    blank = torch.full((height, width), IGNORE)
    labels = {name: blank.clone() for name in ("shape", "colour", "centre")}
    labels["row"] = (torch.arange(height) * 3 // height)[:, None].expand(height, width).clone()
    labels["column"] = (torch.arange(width) * 3 // width).expand(height, width).clone()
    labels["count"], labels["letters"] = torch.tensor(IGNORE), torch.full((SLOTS,), IGNORE)
    if "objects" in facts:
        labels["count"] = torch.tensor(min(9, len(facts["objects"])))
        best = torch.zeros(height, width)
        for name in ("shape", "colour", "centre"):
            labels[name].fill_(0)
        top, left = torch.arange(height)[:, None] / height, torch.arange(width) / width
        for thing in facts["objects"]:
            x0, y0, x1, y1 = thing["box"]
            across = (torch.clamp(left + 1 / width, max=x1) - torch.clamp(left, min=x0)).clamp(min=0)
            down = (torch.clamp(top + 1 / height, max=y1) - torch.clamp(top, min=y0)).clamp(min=0)
            area = across * down
            share = area / min((x1 - x0) * (y1 - y0), 1 / height / width)
            mine = (share > 0.2) & (area > best)
            best = torch.where(mine, area, best)
            labels["shape"][mine] = SHAPES.index(thing["shape"]) + 1
            labels["colour"][mine] = COLOURS.index(thing["colour"]) + 1
            row, column = int((y0 + y1) / 2 * height), int((x0 + x1) / 2 * width)
            labels["centre"][min(row, height - 1), min(column, width - 1)] = 1
    if "letters" in facts:
        letters = [ALPHABET.index(c) + 1 for c in facts["letters"] if c in ALPHABET]
        if "sheet" not in facts:
            labels["letters"][:] = torch.tensor([*letters, *[0] * SLOTS][:SLOTS])
    filled = {name: label if name in ("letters", "count") else _filled(label) for name, label in labels.items()}
    return {**filled, "ink": torch.from_numpy(_ink(facts, height, width))}


def _ink(facts: dict, height: int, width: int) -> np.ndarray:
    """Shares [4 * UNITS, 1 + alphabet] of every patch that nothing or a character fills; zeros where unknown."""
    ink = np.zeros((2 * height, 2 * width, len(ALPHABET) + 1), np.float32)
    if "boxes" in facts:
        top, left = np.arange(2 * height) / (2 * height), np.arange(2 * width) / (2 * width)
        for character, (x0, y0, x1, y1) in zip(facts["letters"], facts["boxes"], strict=True):
            if character in ALPHABET:
                across = np.clip(np.minimum(left + 0.5 / width, x1) - np.maximum(left, x0), 0, None) * 2 * width
                down = np.clip(np.minimum(top + 0.5 / height, y1) - np.maximum(top, y0), 0, None) * 2 * height
                ink[:, :, ALPHABET.index(character) + 1] += down[:, None] * across
        ink /= np.maximum(1.0, ink.sum(-1, keepdims=True))
        ink[:, :, 0] = 1 - ink.sum(-1)
    whole = np.zeros((4 * UNITS, len(ALPHABET) + 1), np.float32)
    ordered = ink.reshape(height, 2, width, 2, -1).transpose(0, 2, 1, 3, 4).reshape(4 * height * width, -1)
    whole[: len(ordered)] = ordered
    return whole


def _filled(label: Tensor) -> Tensor:
    """The units of a picture in order, filled up to UNITS."""
    return functional.pad(label.flatten(), (0, UNITS - label.numel()), value=IGNORE)

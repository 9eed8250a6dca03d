"""Direct heads for the supervised start of the vision tower; thrown away afterwards.

Every row of the tower (a unit of 32 x 32 pixels) must say what stands there; a small reader spells rendered words.
"""

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
    """Linear heads on rows [N, U, H], and a reader whose slots look for the letters of a word."""

    def __init__(self, width: int) -> None:
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
        self.glyphs = nn.Linear(width, 2 * (len(ALPHABET) + 1))

    def spell(self, rows: Tensor, real: Tensor) -> Tensor:
        """Letters [N, SLOTS, alphabet + end] of the word in each picture; real [N, U] says which rows are its own."""
        keys, values = self.keys(rows).unflatten(-1, (4, -1)).transpose(1, 2), self.values(rows).unflatten(-1, (4, -1))
        slots = self.slots.unflatten(-1, (4, -1)).transpose(0, 1)
        slots = slots.expand(len(rows), -1, -1, -1)
        found = functional.scaled_dot_product_attention(
            slots, keys, values.transpose(1, 2), attn_mask=real[:, None, None, :]
        )
        return self.letters(functional.gelu(found.transpose(1, 2).flatten(2)))

    def losses(self, rows: Tensor, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross entropies by head; labels as made by `unit_labels`, IGNORE where there is nothing to say."""
        rows, real = rows.float(), labels["row"] != IGNORE
        glyph, glyph_2 = self.glyphs(rows).chunk(2, dim=-1)
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
            "glyph": glyph,
            "glyph_2": glyph_2,
        }
        self.correct = {name: _share_right(score, labels[name]) for name, score in scores.items()}
        return {
            name: functional.cross_entropy(score.flatten(0, -2), labels[name].flatten(), ignore_index=IGNORE)
            for name, score in scores.items()
            if bool((labels[name] != IGNORE).any())
        }


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
    labels = {name: blank.clone() for name in ("shape", "colour", "centre", "glyph", "glyph_2")}
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
        labels["letters"][:] = torch.tensor([*letters, *[0] * SLOTS][:SLOTS])
        labels["glyph"].fill_(0)
        labels["glyph_2"].fill_(0)
        drawn = facts["letters"]
        if len(facts["centres"]) != len(drawn):
            drawn = drawn.replace(" ", "")
        for letter, (x, y) in zip(drawn, facts["centres"], strict=True):
            if letter not in ALPHABET:
                continue
            row, column = min(height - 1, int(y * height)), min(width - 1, int(x * width))
            name = "glyph" if labels["glyph"][row, column] == 0 else "glyph_2"
            labels[name][row, column] = ALPHABET.index(letter) + 1
    return {name: label if name in ("letters", "count") else _filled(label) for name, label in labels.items()}


def _filled(label: Tensor) -> Tensor:
    """The units of a picture in order, filled up to UNITS."""
    return functional.pad(label.flatten(), (0, UNITS - label.numel()), value=IGNORE)

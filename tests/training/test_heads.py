"""Labels of units: what stands where, from the facts of the maker."""

import torch

from training.data.shapes import COLOURS, SHAPES
from training.heads import ALPHABET, IGNORE, SLOTS, UNITS, VisionHeads, unit_labels


def test_a_thing_labels_the_units_it_covers_and_one_centre() -> None:
    box = (0.5, 0.0, 0.99, 0.5)  # right half, upper half
    labels = unit_labels({"objects": [{"shape": "star", "colour": "red", "box": box}]}, 4, 6)
    shape = labels["shape"][:24].view(4, 6)
    assert (shape[:2, 3:] == SHAPES.index("star") + 1).all() and (shape[2:] == 0).all() and (shape[:, :3] == 0).all()
    assert (labels["colour"][:24].view(4, 6)[:2, 3:] == COLOURS.index("red") + 1).all()
    assert labels["centre"][:24].view(4, 6).nonzero().tolist() == [[1, 4]]
    assert labels["count"] == 1
    assert (labels["shape"][24:] == IGNORE).all() and len(labels["shape"]) == UNITS
    assert (labels["letters"] == IGNORE).all() and (labels["glyph"] == IGNORE).all()


def test_letters_are_labelled_in_order_and_where_they_stand() -> None:
    centres = [(0.1, 0.5), (0.3, 0.5), (0.35, 0.5)]
    labels = unit_labels({"letters": "aB7", "centres": centres}, 1, 10)
    wanted = [ALPHABET.index(c) + 1 for c in "aB7"]
    assert labels["letters"].tolist() == [*wanted, *[0] * (SLOTS - 3)]
    assert labels["glyph"][:10].tolist() == [0, wanted[0], 0, wanted[1], 0, 0, 0, 0, 0, 0]
    assert labels["glyph_2"][3] == wanted[2], "a second letter in the same unit has a head of its own"
    assert (labels["shape"] == IGNORE).all()


def test_heads_learn_only_from_what_is_labelled() -> None:
    torch.manual_seed(0)
    heads = VisionHeads(16)
    facts = ({"letters": "ab", "centres": [(0.1, 0.1), (0.9, 0.1)]}, {"letters": "c", "centres": [(0.5, 0.5)]})
    labels = [unit_labels(one, 4, 6) for one in facts]
    stacked = {name: torch.stack([one[name] for one in labels]) for name in labels[0]}
    rows = torch.randn(2, UNITS, 16, requires_grad=True)
    losses = heads.losses(rows, stacked)
    assert set(losses) == {"row", "column", "letters", "glyph", "glyph_2"}
    torch.stack(list(losses.values())).sum().backward()
    assert rows.grad is not None and not rows.grad[:, 24:].any(), "units behind a picture's own are never read"

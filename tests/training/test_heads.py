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
    assert (labels["letters"] == IGNORE).all() and not labels["ink"].any()


def test_letters_are_labelled_in_order_and_by_the_patches_they_fill() -> None:
    boxes = [(0.0, 0.0, 0.1, 1.0), (0.3, 0.0, 0.4, 0.5), (0.4, 0.0, 0.425, 1.0)]
    labels = unit_labels({"letters": "aB7", "boxes": boxes}, 1, 10)
    a, big_b, seven = (ALPHABET.index(c) + 1 for c in "aB7")
    assert labels["letters"].tolist() == [a, big_b, seven, *[0] * (SLOTS - 3)]
    ink = labels["ink"].view(UNITS, 2, 2, -1)  # a unit's patches: two rows of two
    assert (ink[0, :, :, a] == 1).all() and (ink[1, :, :, 0] == 1).all()
    assert (ink[3, 0, :, big_b] - 1).abs().max() < 1e-5 and (ink[3, 1, :, big_b] == 0).all()
    assert (ink[4, :, 0, seven] - 0.5).abs().max() < 1e-5 and (ink[4, :, 0, 0] - 0.5).abs().max() < 1e-5
    assert not ink[10:].any() and (labels["shape"] == IGNORE).all()


def test_nobody_spells_a_sheet() -> None:
    labels = unit_labels({"letters": "ab", "boxes": [(0.0, 0.0, 0.1, 1.0)] * 2, "sheet": True}, 1, 10)
    assert (labels["letters"] == IGNORE).all() and labels["ink"].any()


def test_heads_learn_only_from_what_is_labelled() -> None:
    torch.manual_seed(0)
    heads = VisionHeads(16, 8)
    for head in heads.glyphs, heads.patch_glyphs:
        torch.nn.init.normal_(head.weight)
    facts = ({"letters": "ab", "boxes": [(0.1, 0.1, 0.3, 0.6), (0.8, 0.1, 0.9, 0.5)]}, {"objects": []})
    labels = [unit_labels(one, 4, 6) for one in facts]
    stacked = {name: torch.stack([one[name] for one in labels]) for name in labels[0]}
    rows = torch.randn(2, UNITS, 16, requires_grad=True)
    states = torch.randn(2, 4 * UNITS, 8, requires_grad=True)
    losses = heads.losses(states, rows, stacked)
    assert set(losses) >= {"row", "column", "letters", "glyph", "patch_glyph"}
    (losses["glyph"] + losses["patch_glyph"] + losses["letters"]).backward()
    assert rows.grad is not None and not rows.grad[:, 24:].any(), "units behind a picture's own are never read"
    assert states.grad is not None and states.grad[0, :96].any() and not states.grad[:, 96:].any()
    assert not states.grad[1].any(), "nothing is known of letters in a scene"

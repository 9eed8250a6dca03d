"""The trainer's forward pass is the runtime's: whole rows, packed examples, windows, sinks and padding."""

import numpy as np
import torch

from mimo_cli.model.decoder import TextModel
from training.data.sample import Sample
from training.packing import pack
from training.prompts import Prompter
from training.trunk import Layout, Trunk

# Sums of other shapes in another order, float32, through six layers.
TOLERANCE = {"atol": 2e-4, "rtol": 1e-4}


def _alone(model: TextModel, ids: np.ndarray) -> torch.Tensor:
    return model(model.embed(torch.from_numpy(ids))[None], torch.arange(len(ids)))[0]


def test_a_row_longer_than_the_window_equals_the_package(text_model: TextModel) -> None:
    torch.manual_seed(1)
    ids = torch.randint(0, 2000, (1, 200))
    visible = torch.tril(torch.ones(1, 200, 200, dtype=torch.bool))
    layout = Layout.of(visible, torch.arange(200)[None], torch.ones(1, 200, dtype=torch.bool), text_model)
    with torch.no_grad():
        found = Trunk(text_model, torch.float32, compiled=False).states(text_model.embed(ids), layout)
        expected = _alone(text_model, ids[0].numpy())
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_packed_examples_compute_what_they_would_alone(text_model: TextModel, prompter: Prompter) -> None:
    questions = ("a is 3. b is 4. a?", "a is 3. b is 4. b?", "Say: red", "Copy: one two three")
    examples = [prompter.example(Sample("t", (question,), "four")) for question in questions]
    too_long = prompter.example(Sample("t", ("a " * 100,), "four"))
    batch = pack(iter([examples[:2], [examples[2]], [examples[3]], [too_long]]), 1, 160)
    visible, positions, valid = (torch.from_numpy(a) for a in (batch.visible, batch.positions, batch.valid))
    layout = Layout.of(visible, positions, valid, text_model)
    with torch.no_grad():
        states = Trunk(text_model, torch.float32, compiled=False).states(
            text_model.embed(torch.from_numpy(batch.ids)), layout
        )
        for number, example in enumerate(batch.examples):
            expected = _alone(text_model, example.ids)[example.answer - 1 : -1]
            torch.testing.assert_close(states[batch.predict[batch.example_of == number]], expected, **TOLERANCE)
    assert {example.task for example in batch.examples} == {"t"}
    assert batch.valid.sum() < sum(map(len, batch.examples)), "beginnings are stored once"


def test_every_layer_reports_the_load_of_its_router(text_model: TextModel) -> None:
    trunk = Trunk(text_model, torch.float32, compiled=False)
    visible = torch.tril(torch.ones(1, 16, 16, dtype=torch.bool))
    valid = torch.arange(16)[None] < 10
    with torch.no_grad():
        trunk.states(torch.randn(1, 16, 256), Layout.of(visible, torch.arange(16)[None], valid, text_model))
    assert sorted(trunk.loads) == list(text_model.config.moe_layers)
    for load in trunk.loads.values():
        assert load.counts.sum() == 10 * text_model.config.num_experts_per_tok, "padding is not counted"

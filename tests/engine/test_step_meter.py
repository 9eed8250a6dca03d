"""The meter sees where time goes, counts routed tokens, and leaves nothing behind."""

import torch

from mimo_cli.engine.step_meter import StepMeter
from mimo_cli.media.prompt import Prompt
from tests.support.engines import golden_engine, golden_ids
from tests.support.kernels import needs_kernels


def hooks() -> int:
    modules = golden_engine().decoder.modules()
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def test_every_layer_takes_time_of_which_attention_is_a_part() -> None:
    engine = golden_engine()
    sequence = engine.start_sequence(200)
    with StepMeter(engine) as meter:
        sequence.prefill(Prompt(golden_ids(1)))
        prefill = meter.read()
        sequence.decode(5)
        step = meter.read() - prefill
    for times in (prefill, step):
        assert len(times.layer_s) == engine.config.num_hidden_layers and all(seconds > 0 for seconds in times.layer_s)
        assert times.attention_s < sum(times.layer_s)
    assert prefill.attention_s > 0


@needs_kernels
def test_kernels_count_what_a_decoded_token_reads() -> None:
    engine = golden_engine()
    sequence = engine.start_sequence(200)
    sequence.prefill(Prompt(golden_ids(1)))
    with StepMeter(engine) as meter:
        before = meter.read()
        sequence.decode(5)
        step = meter.read() - before
    assert step.kernels.calls >= len(engine.config.moe_layers) and step.kernels.weight_bytes > 0
    assert step.kernels.seconds > 0


def test_only_decoded_tokens_are_counted_by_expert() -> None:
    engine = golden_engine()
    sequence = engine.start_sequence(200)
    with StepMeter(engine) as meter:
        sequence.prefill(Prompt(golden_ids(1)))
        assert all(not chosen for chosen in meter.chosen.values())
        for token in (5, 6, 7):
            sequence.decode(token)
    assert tuple(meter.chosen) == engine.config.moe_layers
    assert all(chosen.total() == 3 * engine.config.num_experts_per_tok for chosen in meter.chosen.values())


def test_the_meter_changes_no_answer_and_leaves_no_hook() -> None:
    engine, before = golden_engine(), hooks()
    plain = engine.logits(golden_ids(1))
    with StepMeter(engine):
        assert hooks() > before
        assert torch.equal(engine.logits(golden_ids(1)), plain)
    assert hooks() == before

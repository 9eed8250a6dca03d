"""Decoded tokens go where a trace says, prompts go where the routers say."""

from pathlib import Path

import pytest

from mimo_cli.engine.engine import Engine
from mimo_cli.engine.forced_routing import forced_routing
from mimo_cli.engine.load import load_engine
from mimo_cli.engine.routing_trace import RoutingRecorder, RoutingTrace, TracedPass, read_trace
from mimo_cli.errors import UsageError
from mimo_cli.media.prompt import Prompt
from tests.support.miniature import random_miniature


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The random miniature."""
    return load_engine(random_miniature())


def trace(
    engine: Engine, *rows: tuple[int, int], layers: int | None = None, experts: int | None = None
) -> RoutingTrace:
    """A trace whose every layer visits the same two experts."""
    count = len(engine.config.moe_layers) if layers is None else layers
    passes = tuple(TracedPass(1, (row,) * count) for row in rows)
    return RoutingTrace("made", tuple(range(count)), experts or engine.config.n_routed_experts, 2, passes)


def test_tokens_visit_the_experts_of_the_trace_again_and_again(engine: Engine, tmp_path: Path) -> None:
    sequence = engine.start_sequence(32)
    made = trace(engine, (0, 1), (5, 2), (7, 3))
    with forced_routing(engine.decoder, made), RoutingRecorder(engine.decoder, tmp_path / "t", ""):
        sequence.prefill(Prompt((1, 2, 3, 4)))
        for token in range(5):
            sequence.decode(token)
    recorded = read_trace(tmp_path / "t")
    assert [one.experts[0] for one in recorded.passes[1:]] == [(0, 1), (5, 2), (7, 3), (0, 1), (5, 2)]
    assert all(len(set(one.experts)) == 1 for one in recorded.passes[1:])
    assert len(set(recorded.passes[0].experts)) > 1 or len(recorded.passes[0].experts[0]) > 2


def test_afterwards_the_routers_decide_again(engine: Engine) -> None:
    before = engine.logits([9])
    with forced_routing(engine.decoder, trace(engine, (0, 1))):
        during = engine.logits([9])
    assert engine.logits([9]).equal(before) and not during.equal(before)


def test_traces_of_other_models_are_refused(engine: Engine) -> None:
    layers = len(engine.config.moe_layers)
    for made, message in (
        (trace(engine), "no decoded token"),
        (trace(engine, (0, 1), experts=99), "2 of 99 experts"),
        (trace(engine, (0, 1), layers=layers - 1), f"{layers - 1} layers with experts, the model {layers}"),
    ):
        with pytest.raises(UsageError, match=message), forced_routing(engine.decoder, made):
            pass

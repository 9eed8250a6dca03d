"""Hit rates of a plan: by share where routing is even, by replay where it was recorded, unknown for ordinary text."""

from pathlib import Path

import pytest

from benchmarks.synthetic_traces import synthetic_trace
from mimo_cli.checkpoint.release_shapes import release_config
from mimo_cli.engine.model_sizes import model_sizes
from mimo_cli.engine.placement import Placement, plan_placement
from mimo_cli.engine.routed_hits import routed_hits
from mimo_cli.engine.trace_replay import replay_ours


def place(ram_gb: int) -> Placement:
    return plan_placement(model_sizes(release_config("v2.5"), None, "int4", "int8"), ram_gb * 10**9, 1024)


def test_even_routing_finds_what_is_there() -> None:
    hits = routed_hits("uniform", None)(place(50))
    assert hits is not None and hits.low == hits.high == place(50).resident_share


def test_ordinary_text_is_left_to_experience() -> None:
    assert routed_hits(None, None)(place(50)) is None
    assert routed_hits("skewed", None)(place(50)) is None


def test_a_trace_is_replayed_with_the_same_share_of_slots(tmp_path: Path) -> None:
    trace = synthetic_trace("mixed", tokens=80, layers=2, experts=32, active=4)
    trace.write(tmp_path / "t")
    tell = routed_hits(None, tmp_path / "t")
    hits = tell(place(50))
    assert hits is not None
    slots = round(place(50).resident_share * 64)
    assert hits.low == hits.high == pytest.approx(replay_ours(trace, slots, 20).decode_rate)
    more = tell(place(100))
    assert more is not None and more.low >= hits.low

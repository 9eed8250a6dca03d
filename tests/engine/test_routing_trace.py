"""A trace says what the routers chose, survives whatever ends the run, and damage is told by its line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import load_engine
from mimo_cli.engine.routing_trace import RoutingRecorder, RoutingTrace, TracedPass, read_trace
from mimo_cli.errors import MimoError, UsageError
from mimo_cli.media.prompt import Prompt
from mimo_cli.model.moe import MoE
from tests.support.miniature import random_miniature


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The random miniature."""
    return load_engine(random_miniature())


def spy(engine: Engine, seen: list[list[list[int]]]) -> Callable[[], None]:
    """Note what every router chooses, in the order of calls."""
    gates = [layer.mlp.gate for layer in engine.decoder.layers if isinstance(layer.mlp, MoE)]
    handles = [gate.register_forward_hook(lambda _m, _i, out: seen.append(out[0].tolist())) for gate in gates]
    return lambda: [handle.remove() for handle in handles] and None


def test_a_recording_is_what_the_routers_chose(engine: Engine, tmp_path: Path) -> None:
    seen: list[list[list[int]]] = []
    sequence = engine.start_sequence(64)
    stop = spy(engine, seen)
    with RoutingRecorder(engine.decoder, tmp_path / "t.jsonl", "miniature"):
        sequence.prefill(Prompt((5, 6, 7, 8, 9)))
        for token in (1, 2, 3):
            sequence.decode(token)
    stop()
    trace = read_trace(tmp_path / "t.jsonl")
    layers = len(trace.layers)
    assert trace.layers == engine.config.moe_layers and trace.model == "miniature"
    assert (trace.experts, trace.active) == (engine.config.n_routed_experts, engine.config.num_experts_per_tok)
    assert [one.tokens for one in trace.passes] == [5, 1, 1, 1]
    for at, one in enumerate(trace.passes[1:], 1):
        assert [list(row) for row in one.experts] == [ids[0] for ids in seen[at * layers : (at + 1) * layers]]
    for row, ids in zip(range(layers), seen, strict=False):
        flat = [expert for token in ids for expert in token]
        prompt = trace.passes[0]
        assert dict(zip(prompt.experts[row], prompt.counts[row], strict=True)) == {e: flat.count(e) for e in set(flat)}
    assert not list(tmp_path.glob(".*"))


def test_recording_changes_no_logit(engine: Engine, tmp_path: Path) -> None:
    plain = engine.logits([3, 1, 4, 1, 5])
    with RoutingRecorder(engine.decoder, tmp_path / "t", ""):
        recorded = engine.logits([3, 1, 4, 1, 5])
    assert torch.equal(plain, recorded)


def test_an_interrupt_keeps_the_passes_before_it(engine: Engine, tmp_path: Path) -> None:
    sequence = engine.start_sequence(16)
    last = engine.decoder.layers[-1]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), RoutingRecorder(engine.decoder, tmp_path / "t", ""):
        sequence.prefill(Prompt((1, 2)))
        handle = last.register_forward_hook(interrupt)
        try:
            sequence.decode(3)
        finally:
            handle.remove()
    assert [one.tokens for one in read_trace(tmp_path / "t").passes] == [2]


def test_until_the_end_the_old_file_stays(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("old")
    with RoutingRecorder(engine.decoder, path, ""):
        engine.logits([1])
        assert path.read_text() == "old"
    assert read_trace(path).passes


def test_a_place_that_cannot_be_written_is_told(engine: Engine, tmp_path: Path) -> None:
    with (
        pytest.raises(MimoError, match="cannot be written"),
        RoutingRecorder(engine.decoder, tmp_path / "no" / "t", ""),
    ):
        pass


ROWS = st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True).map(lambda row: tuple(sorted(row)))
PASSES = st.one_of(
    st.tuples(ROWS, ROWS).map(lambda rows: TracedPass(1, rows)),
    st.tuples(ROWS, ROWS).map(lambda rows: TracedPass(9, rows, tuple(tuple(len(r) for _ in r) for r in rows))),
)


@given(st.lists(PASSES, max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_again(tmp_path: Path, passes: list[TracedPass]) -> None:
    trace = RoutingTrace("any model", (1, 4), 8, 2, tuple(passes))
    trace.write(tmp_path / "t")
    assert read_trace(tmp_path / "t") == trace


def test_a_line_that_was_cut_is_left_away(tmp_path: Path) -> None:
    RoutingTrace("m", (1,), 4, 2, (TracedPass(1, ((0, 1),)), TracedPass(1, ((2, 3),)))).write(tmp_path / "t")
    text = (tmp_path / "t").read_text()
    (tmp_path / "t").write_text(text[:-5])
    assert len(read_trace(tmp_path / "t").passes) == 1


HEAD = json.dumps({"format": "mimo-routing", "version": 1, "layers": [1], "experts": 4, "active": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 .* is no JSON"),
        ("[1]\n", "no JSON object"),
        ('{"format": "other"}\n', "is no routing trace"),
        ('{"format": "mimo-routing", "version": 9}\n', "of version 9"),
        ('{"format": "mimo-routing", "version": 1}\n', "first line .* is damaged"),
        (HEAD + '\n{"n":1,"e":[[0,4]]}\n', "line 2 .* is damaged"),
        (HEAD + '\n{"n":1,"e":[[0,0]]}\n', "line 2 .* is damaged"),
        (HEAD + '\n{"n":1,"e":[[0],[1]]}\n', "line 2 .* is damaged"),
        (HEAD + '\n{"n":0,"e":[[0]]}\n', "line 2 .* is damaged"),
        (HEAD + '\n{"n":2,"e":[[0,1]],"c":[[1]]}\n', "line 2 .* is damaged"),
        (HEAD + '\n{"n":1}\n', "line 2 .* is damaged"),
        (HEAD + "\nnot json\n", "line 2 .* is no JSON"),
    ],
)
def test_damage_is_told_by_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_trace(tmp_path / "t")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_trace(tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(UsageError, match="it is no text"):
        read_trace(tmp_path / "binary")

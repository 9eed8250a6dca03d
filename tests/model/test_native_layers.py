"""All layers of a step in one call: bit for bit what the modules give, whatever is in memory, and whoever watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from torch import Tensor

from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.engine.sequence import Sequence
from mimo_cli.engine.step_meter import StepMeter
from mimo_cli.media.prompt import Prompt
from mimo_cli.model.native_layers import NativeLayers
from mimo_cli.quant.layer_run import LayerRun
from tests.support.engines import GOLDEN, MINIATURE
from tests.support.kernels import needs_kernels

pytestmark = needs_kernels
FOLDERS = {"text": GOLDEN / "text", "text_mxfp4": GOLDEN / "text_mxfp4", "miniature": MINIATURE}
DECODED = (5, 9, 3, *range(20, 90))
"""More than the sliding windows hold and their caches have room for: they move twice."""


@cache
def engine_of(name: str, dtype: str) -> Engine:
    return load_engine(FOLDERS[name], dtype=dtype)


@contextmanager
def by_modules(engine: Engine) -> Iterator[None]:
    native, engine.decoder.native = engine.decoder.native, None
    try:
        yield
    finally:
        engine.decoder.native = native


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Give the runs of the block: where each began and stopped."""
    runs: list[tuple[int, int]] = []
    original = LayerRun.run

    def run(self: LayerRun, first: int, *arguments: object) -> int:
        stop = original(self, first, *arguments)  # type: ignore[arg-type]
        runs.append((first, stop))
        return stop

    with monkeypatch.context() as patch:
        patch.setattr(LayerRun, "run", run)
        yield runs


def answers(engine: Engine, decoded: tuple[int, ...] = DECODED) -> list[Tensor]:
    """The logits after a prompt, after each decoded token, and of drafts of several tokens behind them."""
    sequence = engine.start_sequence(300)
    found = [sequence.prefill(Prompt(tuple(range(30, 50))))]
    found += [sequence.decode(token) for token in decoded]
    for tokens in (2, 8, 5):
        found.append(extended(sequence, tuple(range(60, 60 + tokens))))
    return found


def extended(sequence: Sequence, ids: tuple[int, ...]) -> Tensor:
    return torch.cat(list(sequence.read(Prompt((*sequence.ids, *ids)))))


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FOLDERS)
def test_one_call_gives_the_bits_of_the_modules(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(name, dtype)
    with by_modules(engine):
        expected = answers(engine)
    with counted(monkeypatch) as runs:
        assert same(answers(engine), expected)
    whole = [stop - first for first, stop in runs if stop - first == engine.config.num_hidden_layers]
    assert len(whole) > 0.9 * len(DECODED)  # it ran, but for the moves of a cache


@pytest.mark.parametrize("name", FOLDERS)
def test_an_expert_that_was_not_read_stops_the_run_and_changes_no_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(name, "float32")
    with by_modules(engine):
        expected = answers(engine, DECODED[:6])
    engine.drop_experts()
    with counted(monkeypatch) as runs:
        assert same(answers(engine, DECODED[:6]), expected)
    layers = engine.config.num_hidden_layers
    stopped = [stop for _, stop in runs if stop < layers]
    assert set(stopped) <= set(engine.config.moe_layers)
    assert all(first == 0 or first - 1 in stopped for first, _ in runs)  # and it goes on behind that layer


def test_what_is_counted_does_not_depend_on_the_way() -> None:
    engine = engine_of("text", "float32")
    answers(engine)  # all experts that are needed are in memory now

    def counts() -> tuple[int, int, int, int, int]:
        use, counters = engine.compute.kernels.use, engine.experts.counters
        return use.calls, use.weight_bytes, counters.hits, counters.ram_bytes, engine.experts.native_calls

    def used(way: Callable[[], object]) -> list[int]:
        before, step = counts(), engine.experts.cache.step
        way()
        return [*(b - a for a, b in zip(before, counts(), strict=True)), engine.experts.cache.step - step]

    here = used(lambda: answers(engine))
    with by_modules(engine):
        there = used(lambda: answers(engine))
    assert here == there and all(number > 0 for number in here)


def test_few_slots_leave_it_to_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine_of("text", "float32")
    options = LoadOptions(expert_bytes=3 * whole.experts.expert_bytes)
    expected = answers(whole, DECODED[:4])
    with load_engine(FOLDERS["text"], dtype="float32", options=options) as small:
        with counted(monkeypatch) as runs:
            assert same(answers(small, DECODED[:4]), expected)
        assert not runs and not small.experts.cache.holds_all
        for _ in range(2):  # another cache each time: what was made for the one before must not be looked into
            small.experts.allot(whole.experts.resident_bytes)
            with counted(monkeypatch) as runs:
                assert same(answers(small, DECODED[:4]), expected)
            assert runs


def test_a_hook_sees_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("text", "float32")
    expected = answers(engine, DECODED[:3])
    seen: list[int] = []
    for layer in (0, 1):
        part = engine.decoder.layers[layer]
        for module in (part, part.mlp, *([part.mlp.gate] if part.is_moe else [])):
            handle = module.register_forward_hook(lambda *_, number=layer: seen.append(number))
            with counted(monkeypatch) as runs:
                assert same(answers(engine, DECODED[:3]), expected)
            handle.remove()
            assert not runs and len(seen) == 7  # the prompt, three tokens, three drafts
            seen.clear()


def test_the_meter_measures_the_call_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("text", "float32")
    sequence = engine.start_sequence(100)
    sequence.prefill(Prompt(tuple(range(30, 50))))
    sequence.decode(7)
    with StepMeter(engine) as meter, counted(monkeypatch) as runs:
        before, routed = meter.read(), {layer: chosen.copy() for layer, chosen in meter.chosen.items()}
        sequence.decode(8)
        step = meter.read() - before
    assert runs == [(0, engine.config.num_hidden_layers)]
    assert all(seconds > 0 for seconds in step.layer_s) and sum(step.layer_s) <= step.kernels.seconds
    new = [(chosen - routed[layer]).total() for layer, chosen in meter.chosen.items()]
    assert new == [engine.config.num_experts_per_tok] * len(engine.config.moe_layers)
    with counted(monkeypatch) as runs:
        sequence.decode(9)
    assert len(runs) == 1 and not engine.decoder.native.watchers and not engine.decoder.native.known_hooks


def test_what_it_cannot_do_is_left_to_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("text", "float32")
    decoder = engine.decoder
    assert isinstance(decoder.native, NativeLayers)
    with torch.inference_mode(), counted(monkeypatch) as runs:
        embeds = decoder.embed(torch.arange(30, 34))
        decoder(embeds[None], torch.arange(4))  # no cache
        decoder(embeds[None].expand(2, -1, -1), torch.arange(4))  # several sequences
        answers(engine, ())[0]
    assert all(stop - first == engine.config.num_hidden_layers for first, stop in runs) and len(runs) == 3  # the drafts

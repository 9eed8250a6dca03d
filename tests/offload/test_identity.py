"""Where a weight lay, how it was read and who was there before never change one bit of the answer."""

import contextlib
import errno
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.errors import CheckpointError
from mimo_cli.offload import expert_store, extent_reader, record_source
from mimo_cli.offload.reading import Reading
from tests.support.engines import GOLDEN, golden_engine, golden_ids
from tests.support.kernels import needs_kernels
from tests.support.offload_faults import EXPERTS, FaultyDisk, answer, open_store, step
from tests.support.stores import made_store

pytestmark = needs_kernels

STEPS = st.tuples(st.sampled_from([1, 1, 1, 2, 9, 40]), st.integers(0, 5))
ACTIONS = st.sampled_from(["run", "run", "run", "ahead", "resize", "fail", "interrupt", "clear"])


@pytest.mark.parametrize("kind", ["shards", "store"])
@settings(max_examples=30, deadline=None)
@given(
    slots=st.integers(1, EXPERTS * 2),
    threads=st.integers(1, 6),
    mode=st.sampled_from(["direct", "buffered"]),
    history=st.lists(st.tuples(ACTIONS, STEPS, st.integers(1, EXPERTS)), min_size=1, max_size=8),
    shorten=st.booleans(),
    part_bytes=st.sampled_from([4096, 8192, 1 << 22]),
    block_rows=st.sampled_from([7, 2048]),
)
def test_any_schedule_has_the_same_bits(
    kind: str,
    slots: int,
    threads: int,
    mode: str,
    history: list[tuple[str, tuple[int, int], int]],
    shorten: bool,
    part_bytes: int,
    block_rows: int,
) -> None:
    disk = FaultyDisk()
    disk.shorten = random.Random(1) if shorten else None
    usual_part_bytes, record_source.PART_BYTES = record_source.PART_BYTES, part_bytes
    store = open_store(kind, slots, mode=mode, threads=threads, read_at=disk.read_at)
    record_source.PART_BYTES = usual_part_bytes
    waits, extent_reader.RETRY_WAITS_S = extent_reader.RETRY_WAITS_S, ()
    usual_rows, expert_store.BLOCK_ROWS = expert_store.BLOCK_ROWS, block_rows
    try:
        for action, (tokens, seed), number in history:
            if action == "ahead":
                store.cache.read_ahead(1, list(range(number)), number)
            elif action == "resize":
                store.cache.resize(number)
            elif action == "clear":
                store.clear()
            elif action == "interrupt":
                arriving = store.cache.arriving(1, list(range(min(number, store.cache.limit))), in_order=False)
                next(arriving)
                arriving.close()  # as Ctrl-C leaves it: reads under way, nobody waiting
            elif action == "fail":
                disk.fails = lambda read: errno.EIO
                with contextlib.suppress(CheckpointError):
                    store.run(1, *step(tokens, seed))
                disk.fails = lambda read: None
            assert torch.equal(store.run(1, *step(tokens, seed)), answer(kind, tokens, seed))
    finally:
        extent_reader.RETRY_WAITS_S, expert_store.BLOCK_ROWS = waits, usual_rows
        store.close()


def greedy(engine: Engine) -> tuple[list[int], torch.Tensor]:
    """Return six greedy tokens after a prompt, and the logits of all of it."""
    ids = list(golden_ids(0))
    sequence = engine.start_sequence(256)
    logits = [engine.logits(ids)]
    for token in ids:
        last = sequence.decode(token)
    tokens = []
    for _ in range(6):
        tokens.append(int(last.argmax()))
        last = sequence.decode(tokens[-1])
        logits.append(last[None])
    return tokens, torch.cat(logits)


@pytest.mark.parametrize(
    ("expert_bytes", "threads", "reading"),
    [
        (0, 1, Reading("direct", 1)),
        (20_000, 2, Reading("direct", 4)),
        (200_000, 1, Reading("buffered", 2)),
        (10**6, 2, Reading("direct", 8, verify=True)),
        (10**9, 1, Reading("buffered", 1)),
    ],
)
def test_greedy_tokens_and_logits_are_the_same_under_every_budget_and_way_of_reading(
    expert_bytes: int, threads: int, reading: Reading
) -> None:
    expected_tokens, expected = greedy(golden_engine("text"))
    options = LoadOptions(expert_bytes=expert_bytes, threads=threads, reading=reading)
    with load_engine(GOLDEN / "text", dtype="float32", options=options) as engine:
        tokens, logits = greedy(engine)
    assert tokens == expected_tokens and torch.equal(logits, expected)


def test_a_packed_store_of_the_same_weights_has_the_same_bits() -> None:
    expected_tokens, expected = greedy(golden_engine("text"))
    folder = made_store("text", "fp8")
    options = LoadOptions(expert_bytes=100_000, reading=Reading("direct", 3))
    with load_engine(folder, dtype="float32", options=options) as engine:
        tokens, logits = greedy(engine)
    assert tokens == expected_tokens and torch.equal(logits, expected)

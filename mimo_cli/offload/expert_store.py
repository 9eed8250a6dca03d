"""ExpertStore: runs the routed experts of a step on the native kernels, from packed records that come from disk.

    router's choice -> experts in memory, experts to be read -> kernel calls as they are there -> sum in ascending order

The order of arrival never shows: a few tokens get their experts' shares in rows of their own, summed up in ascending
order at the end; many tokens are computed in ascending order from the start, reads running ahead. An expert's share has
the same bits either way, so neither the budget nor what happens to be in memory changes a bit of the answer.
Letters: N tokens, H hidden size, A experts per token, P = N A pairs.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from mimo_cli.offload.ahead import READS_PER_LAYER, AheadControl
from mimo_cli.offload.counters import OffloadCounters
from mimo_cli.offload.expert_cache import ExpertCache
from mimo_cli.offload.expert_records import ExpertRecords
from mimo_cli.offload.first_experts import FirstExperts
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.offload.usage_file import load_usage, save_usage
from mimo_cli.quant.kernels import ExpertPairs, Kernels, Precision
from mimo_cli.quant.layer_run import ExpertSlots
from mimo_cli.quant.linear import refuse_gradients

DEFAULT_RESIDENT_BYTES = 2_000_000_000
"""Room for 79 experts of MiMo-V2.5 in FP8, or for all of a small model, where nobody said how much there is."""

Guess: TypeAlias = Callable[[int, Tensor], tuple[int, list[int]] | None]
"""Given a layer and the states [1, H] before its experts: the next layer with experts and its likely ones, or None."""

FEW_PAIRS = 128
"""Up to so many pairs have rows of their own: 2 MB for MiMo-V2.5. Beyond, computing outlasts the odd late read."""

BLOCK_ROWS = 2048
"""Rows given to the kernels at once: their own memory grows with it."""

MOST_STEPS = 64
"""A prompt counts for so many steps at most in the statistics: it says what is popular, not what comes next."""


class ExpertStore:
    """Satisfies the network's ExpertSource over packed records; holds as many as fit in `resident_bytes`, at least one.

    layers, experts: all there are. `source` reads records; `step_slots` experts of a layer are what one token needs.
    `native_calls` counts calls of the kernels, `counters` everything else. Calls from several threads take turns.
    `guess` names the next layer's likely experts, `usage_file` keeps what is popular from run to run.
    """

    def __init__(
        self,
        source: RecordSource,
        kernels: Kernels,
        precision: Precision,
        layers: Sequence[int],
        experts: int,
        resident_bytes: int = DEFAULT_RESIDENT_BYTES,
        step_slots: int = 1,
        usage_file: Path | None = None,
    ) -> None:
        self.guess: Guess | None = None
        self.source = source
        self.kernels = kernels
        self.precision: Precision = precision
        self.native_calls = 0
        self._sizes = layers, experts, step_slots
        self._usage_file = usage_file
        self._ahead = AheadControl()
        self._first = FirstExperts()
        self.resident_bytes = 0
        self.allot(resident_bytes)
        self._last_layer = -1
        self._turn = threading.RLock()
        self._one_token = torch.zeros(64, dtype=torch.int32)

    def allot(self, resident_bytes: int) -> None:
        """Begin anew with memory for as many experts as fit in so many bytes; before anything was read."""
        self.resident_bytes = resident_bytes
        record_bytes, slots = self.source.records.record_bytes, resident_bytes // self.source.slot_bytes
        reads = self.source.threads, self.source.parts
        self.cache = ExpertCache(self.source.fill_part, record_bytes, slots, *self._sizes, *reads)
        if self._usage_file is not None:
            self.cache.policy.remember(load_usage(self._usage_file))

    def resize(self, slots: int) -> None:
        """Keep to so many experts from now on, at least one and at most as many as were allotted."""
        with self._turn:
            self.cache.resize(slots)

    def expect(self, token: int, ask: Callable[[], Sequence[int]]) -> None:
        """Begin to read what the first layer will probably need for a token that is about to be decoded.

        ask: names its likely experts where the token was never decoded before.
        """
        with self._turn:
            if self.cache.holds_all or self.cache.is_asking:
                return
            layer = self._sizes[0][0]
            experts = self._first.guess(token, ask, lambda expert: self.cache.holds(layer, expert))
            self.cache.read_ahead(layer, experts, READS_PER_LAYER)

    def warm(self) -> None:
        """Begin to read what earlier runs used most, while nothing else is asked for."""
        with self._turn:
            self.cache.warm()

    @property
    def expert_bytes(self) -> int:
        """Memory of one expert."""
        return self.source.slot_bytes

    @property
    def reading_bytes(self) -> int:
        """Memory that reading takes beside the experts."""
        return self.source.scratch_bytes

    @property
    def records(self) -> ExpertRecords:
        """Where experts come from."""
        return self.source.records

    @property
    def counters(self) -> OffloadCounters:
        """What was done so far."""
        counters = self.cache.counters
        counters.disk_bytes, counters.retries = self.source.bytes_read, self.source.retries
        return counters

    @property
    def hits(self) -> int:
        """Experts found in memory."""
        return self.cache.counters.hits

    @property
    def misses(self) -> int:
        """Experts read."""
        return self.cache.counters.misses

    @property
    def bytes_read(self) -> int:
        """Bytes read from the files; of records that come from none, what they would have been."""
        return self.source.bytes_read

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken for experts."""
        return self.cache.nbytes

    def run(self, layer: int, hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
        """Return the weighted sum over each token's experts.

        hidden_states [N, H]; expert_ids [N, A] int64; expert_weights [N, A] float32 -> [N, H], dtype of the input.
        Raises CheckpointError if an expert cannot be read, MimoError where gradients are asked for.
        """
        refuse_gradients(hidden_states)
        if not len(hidden_states):
            return torch.zeros_like(hidden_states)
        with self._turn:
            self.begin(layer, len(hidden_states))
            total = self._run(layer, hidden_states.float().contiguous(), expert_ids, expert_weights)
        return total.to(hidden_states.dtype)

    def begin(self, layer: int, tokens: int) -> None:
        """Count a step of so many tokens, where a layer begins a new pass. `run` does this itself."""
        if layer <= self._last_layer or self._last_layer < 0:  # a new pass
            self.cache.step += min(tokens, MOST_STEPS)
        self._last_layer = layer

    def rows(self, layer: int, inputs: Tensor, experts: Tensor, weights: Tensor, tokens: int) -> Tensor:
        """Return what each expert says of its own row, times its weight: float32 [P, H], for who adds them up himself.

        inputs [P, H]; experts int64 [P]; weights float32 [P], of a step of so many tokens that `begin` was told of.
        Added up in ascending order of experts, the rows of a token have the bits that `run` returns.
        """
        with self._turn:
            return self._run(layer, inputs.float().contiguous(), experts[:, None], weights[:, None], tokens)

    def fetch(self, layer: int, experts: Sequence[int], *, is_asked: bool = True) -> Iterator[tuple[int, Tensor]]:
        """Yield place and record, uint8, of all of some ascending experts in their order, read where they must be.

        A record holds until the next one is asked for. Nothing else may be asked of the store before the end. Where no
        step has asked for them (is_asked False), hits, their bytes and misses stay as they are.
        """
        with self._turn:
            counters = self.cache.counters
            before = counters.hits, counters.ram_bytes, counters.misses
            self.cache.note(layer, experts)
            for ready in self.cache.arriving(layer, experts, in_order=True):
                for place, address in ready:
                    yield place, self.cache.record(address)
            if not is_asked:
                counters.hits, counters.ram_bytes, counters.misses = before

    def layer_slots(self, layer: int) -> ExpertSlots:
        """Return where a layer's experts lie, for who runs them himself inside `step`."""
        numbers, address, slot_bytes = self.cache.layer_slots(layer)
        return ExpertSlots(numbers, address, slot_bytes, self.records.up_shape, self.precision)

    @contextmanager
    def step(self) -> Iterator[ExpertCache | None]:
        """Keep all experts where they are while the block lasts. None where there is not a slot for every one."""
        with self._turn:
            yield self.cache if self.cache.holds_all else None

    def count_step(self, layer: int, tokens: int, used: int) -> None:
        """Count a layer of which `used` different experts were run from their slots."""
        self.begin(layer, tokens)
        self.cache.count_hits(used)
        self.native_calls += 1

    def holds(self, layer: int, expert: int) -> bool:
        """Tell whether an expert is in memory."""
        return self.cache.holds(layer, expert)

    def clear(self) -> None:
        """Let all experts go; the counters stay."""
        with self._turn:
            self.cache.clear()

    def close(self) -> None:
        """Let all experts and their files go."""
        with self._turn:
            if self._usage_file is not None and self.cache.step:
                save_usage(self._usage_file, self.cache.policy.usage())
            self.cache.close()
            self.source.close()

    def _run(
        self, layer: int, x: Tensor, expert_ids: Tensor, expert_weights: Tensor, tokens: int | None = None
    ) -> Tensor:
        experts, pairs = self._sort(layer, expert_ids, expert_weights, tokens or len(x))
        if len(experts) <= self.cache.limit and len(pairs.tokens) <= FEW_PAIRS:
            return self._as_they_come(layer, experts, pairs, x)
        return self._in_order(layer, experts, pairs, x)

    def _look_ahead(self, layer: int, hidden_states: Tensor) -> None:
        """Let the disk work when it has read this layer's experts, while they and the next attention are computed."""
        counters = self.cache.counters
        if self.guess is None or self.cache.holds_all:
            return
        if self._ahead.is_on(counters.prefetched, counters.used_prefetch):
            guessed = self.guess(layer, hidden_states)
            if guessed is not None:
                self.cache.read_ahead(*guessed, READS_PER_LAYER)

    def _sort(
        self, layer: int, expert_ids: Tensor, expert_weights: Tensor, step_tokens: int
    ) -> tuple[list[int], ExpertPairs]:
        """Return ascending experts and the pairs, whose places index them; the policy hears of them.

        step_tokens: of the step; where each row is a pair, there are more rows.
        """
        tokens, active = expert_ids.shape
        weights = expert_weights.reshape(-1).contiguous()
        if tokens == 1 and active <= len(self._one_token):  # a decoded token: plain lists are faster than tensors
            ids = expert_ids[0].tolist()
            experts = sorted(set(ids))
            places = torch.tensor([experts.index(expert_id) for expert_id in ids], dtype=torch.int32)
            self.cache.note(layer, experts)
            if layer == self._sizes[0][0]:
                self._first.learn(experts)
            return experts, ExpertPairs(self._one_token[:active], places, weights)
        unique, inverse, counts = expert_ids.reshape(-1).unique(return_inverse=True, return_counts=True)  # ascending
        shares = (counts / step_tokens).clamp(max=1).tolist()
        self.cache.note(layer, unique.tolist(), shares, min(step_tokens, MOST_STEPS))
        token_of = torch.arange(tokens, dtype=torch.int32).repeat_interleave(active)
        return unique.tolist(), ExpertPairs(token_of, inverse.to(torch.int32), weights)

    def _as_they_come(self, layer: int, experts: list[int], pairs: ExpertPairs, x: Tensor) -> Tensor:
        """Compute what is there, then what arrives, each pair into a row of its own; add the rows in order."""
        total = torch.zeros(x.shape)
        rows: Tensor | None = None
        for number, ready in enumerate(self.cache.arriving(layer, experts, in_order=False)):
            if not number and len(x) == 1:  # all reads of this step are queued by now
                self._look_ahead(layer, x)
            if len(ready) == len(experts):  # the usual step where memory is large: one call, no rows
                ready.sort()
                self._call(ready, pairs, x, total)
                continue
            if rows is None:
                # By numpy, here and below: torch would wake threads that take the processor from those of the kernels.
                inputs = torch.from_numpy(x.numpy()[pairs.tokens.numpy()])  # [P, H]
                rows, places = torch.from_numpy(np.zeros(inputs.shape, np.float32)), pairs.places.tolist()
            order = {place: i for i, (place, _) in enumerate(ready)}
            own = [pair for pair, place in enumerate(places) if place in order]
            rows_of = torch.tensor(own, dtype=torch.int32)
            place_of = torch.tensor([order[places[pair]] for pair in own], dtype=torch.int32)
            to_rows = ExpertPairs(rows_of, place_of, torch.from_numpy(pairs.weights.numpy()[own]))
            self._call(ready, to_rows, inputs, rows)
        if rows is not None:
            tokens, active, sums = len(x), len(places) // len(x), total.numpy()
            by_token = pairs.places.numpy().reshape(tokens, active).argsort(axis=1, kind="stable")
            for column in by_token.T:  # ascending experts
                sums += rows.numpy()[np.arange(tokens) * active + column]
        return total

    def _in_order(self, layer: int, experts: list[int], pairs: ExpertPairs, x: Tensor) -> Tensor:
        """Compute in ascending order, as many experts at a time as are there, for one block of rows after another."""
        total = torch.zeros(x.shape)
        active = len(pairs.tokens) // len(x)
        blocks = [_SortedPairs(pairs, slice(at, at + BLOCK_ROWS), active) for at in range(0, len(x), BLOCK_ROWS)]
        for ready in self.cache.arriving(layer, experts, in_order=True):
            for block in blocks:
                own = block.of(ready[0][0], ready[-1][0])
                if len(own.tokens):
                    self._call(ready, own, x[block.rows], total[block.rows])
        return total

    def _call(self, ready: list[tuple[int, int]], pairs: ExpertPairs, x: Tensor, out: Tensor) -> None:
        gate_up = [address for _, address in ready]
        down_offset = self.records.up_shape.nbytes
        down = [address + down_offset for address in gate_up]
        self.kernels.moe(self.records.up_shape, gate_up, down, pairs, x, out, self.precision)
        self.native_calls += 1


class _SortedPairs:
    """The pairs of a block of `rows`, ascending by expert; their tokens count from the block's first row."""

    def __init__(self, pairs: ExpertPairs, rows: slice, active: int) -> None:
        self.rows = rows
        own = slice(rows.start * active, rows.stop * active)
        places = pairs.places[own]
        order = places.argsort(stable=True)
        self._tokens = pairs.tokens[own][order] - rows.start
        self._places = places[order].contiguous()
        self._weights = pairs.weights[own][order]

    def of(self, first: int, last: int) -> ExpertPairs:
        """Return the pairs of the experts in places `first` to `last`, which become places 0 and on."""
        bounds = torch.tensor([first, last + 1], dtype=torch.int32)
        begin, end = torch.searchsorted(self._places, bounds).tolist()
        return ExpertPairs(self._tokens[begin:end], self._places[begin:end] - first, self._weights[begin:end])

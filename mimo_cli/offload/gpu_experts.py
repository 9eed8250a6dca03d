"""GpuExperts: runs the routed experts of a step on a card, and what the card lacks below it, in memory and on disk.

    router's choice -> in a slot: computed on the card               \
                    -> some missing: copied, computed on the card     > rows of their own, added in ascending order
                    -> the others: computed by the processor         /

A few pairs of token and expert have rows of their own, so that it does not show in the sum who computed which. A prompt
for which it is faster streams whole layers through the landing slots instead, and adds experts in ascending order from
the start. A row of the card differs from one of the processor by rounding alone; on a device that computes with the
processor's kernels all schedules have the same bits. Letters: N tokens, A experts per token, P = N A pairs, H hidden.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_cli.offload.device import Event, ExpertDevice
from mimo_cli.offload.expert_store import MOST_STEPS, ExpertStore
from mimo_cli.offload.gpu_costs import MissCosts
from mimo_cli.offload.gpu_slots import GpuSlots
from mimo_cli.offload.gpu_step import GpuStep, add_in_order, blocks, groups, put_rows
from mimo_cli.quant.linear import refuse_gradients
from mimo_cli.quant.slot_layout import slot_layout
from mimo_cli.units import format_bytes

MAX_ROWS = 2048
"""Pairs that have rows of their own at once: 32 MiB for MiMo-V2.5."""

INSERT_SHARE = 0.25
"""Experts that nobody waits for are uploaded during this share of the time at most: the rest is for who does wait."""

_MOST_SAVED_S = 0.2
"""Unused time for such uploads is saved up to so many seconds."""

_SHRINK = 0.1
"""Share of its slots that a card short of memory gives up each time."""


@dataclass
class GpuCounters:
    """Sums since the start, in experts of a step, however many of its tokens go there.

    hits      found in a slot
    copied    copied because a step needed them, `computed` left to the processor
    inserted  uploads to keep an expert (also of those copied); `evicted` left for them
    streamed  layers of prompts that were streamed whole
    shrinks   times the slots had to become fewer
    """

    hits: int = 0
    copied: int = 0
    computed: int = 0
    inserted: int = 0
    evicted: int = 0
    streamed: int = 0
    shrinks: int = 0


class GpuExperts:
    """Satisfies the network's ExpertSource over `store`, whose experts it holds copies of.

    costs are those measured here. Until `allot` says how many experts the device keeps, all are the store's. Where the
    device runs out of memory, slots are given up; `notices` says so in sentences for the user, and `on_notice` is told.
    """

    def __init__(
        self,
        store: ExpertStore,
        device: ExpertDevice,
        layers: Sequence[int],
        experts: int,
        costs: MissCosts,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.store = store
        self.device = device
        self.costs = costs
        self.counters = GpuCounters()
        self.notices: list[str] = []
        self.layout = slot_layout(store.records.up_shape, store.records.down_shape)
        self._sizes = tuple(layers), experts
        self.on_notice: Callable[[str], None] | None = None
        self._clock = clock
        self._last_s = clock()
        self._saved_s = 0.0
        self._step, self._last_layer = 0, -1
        self.slots: GpuSlots | None = None

    def allot(self, slots: int, half: int) -> None:
        """Take memory for so many experts to keep, and for `half` that land together while others are computed."""
        self.slots = self._open(slots, max(1, half))

    @property
    def capacity(self) -> int:
        """Experts that the device can keep."""
        return self.slots.capacity if self.slots else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory that slots take."""
        return self.slots.nbytes if self.slots else 0

    @property
    def holds_all(self) -> bool:
        """Tell whether every expert is on the device: then nothing is decided by the host any more."""
        return self.slots is not None and self.slots.holds_all

    def run(self, layer: int, hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
        """Return the weighted sum over each token's experts, on the device of the input.

        hidden_states [N, H]; expert_ids [N, A] int64; expert_weights [N, A] float32 -> [N, H], dtype of the input.
        Raises what the store raises, and torch.OutOfMemoryError where even no slots leave no room for a step.
        """
        refuse_gradients(hidden_states)
        if not len(hidden_states):
            return torch.zeros_like(hidden_states)
        while self.slots is not None:
            try:
                return self._run(self.slots, layer, hidden_states, expert_ids, expert_weights)
            except torch.OutOfMemoryError:
                self.shrink()
        where = hidden_states.device
        return self.store.run(layer, hidden_states.cpu(), expert_ids.cpu(), expert_weights.cpu()).to(where)

    def shrink(self) -> None:
        """Give up a tenth of the slots, or all where few are left; experts on the device are forgotten."""
        slots = self.slots
        if slots is None:
            return
        rates, self.slots = slots.policy.usage(), None
        wanted = slots.capacity - max(1, int(_SHRINK * slots.capacity))
        half = slots.half
        slots.close()
        before = slots.nbytes
        del slots
        self.device.release()
        self.counters.shrinks += 1
        if wanted >= 0:
            self.slots = self._open(wanted, half)
        if self.slots is not None:
            self.slots.policy.remember(rates)
        kept = f"{self.capacity:,} experts" if self.slots is not None else "no experts, the processor computes them"
        self._notify(
            f"{self.device.name} ran out of memory: it keeps {kept} from now on "
            f"({format_bytes(self.nbytes)} instead of {format_bytes(before)})"
        )

    def warm(self) -> None:
        """Upload the experts that the store's statistics say are used most, as far as there are free slots."""
        slots = self.slots
        if slots is None:
            return
        for layer, expert in self.store.cache.policy.best(slots.capacity):
            if slots.policy.slot(layer, expert) is None and slots.free and self.store.holds(layer, expert):
                slot = self._admit(slots, layer, expert, ())
                if slot is not None:
                    self._upload_one(slots, layer, expert, slot)

    def clear(self) -> None:
        """Forget the experts on the device, for a cold measurement."""
        if self.slots is not None:
            kept = self.slots.capacity, self.slots.half
            self.slots.close()
            self.slots = None
            self.device.release()
            self.slots = self._open(*kept)

    def close(self) -> None:
        """Give the device's memory back. The store stays open."""
        if self.slots is not None:
            self.slots.close()
            self.slots = None
            self.device.release()

    def _open(self, slots: int, half: int) -> GpuSlots | None:
        """Return as many slots as there is memory for, at most `slots`; None where not even an expert can land."""
        wanted = slots
        while True:
            try:
                record_bytes = self.store.records.record_bytes
                opened = GpuSlots(self.device, record_bytes, *self._sizes, wanted, half)
            except torch.OutOfMemoryError:
                self.device.release()
                if wanted <= 0:
                    return None
                wanted = max(0, wanted - max(1, int(_SHRINK * wanted)))
                continue
            if wanted < slots:
                self._notify(f"{self.device.name} has room for {wanted:,} experts, {slots:,} were planned")
            return opened

    def _notify(self, text: str) -> None:
        self.notices.append(text)
        if self.on_notice is not None:
            self.on_notice(text)

    def _run(self, slots: GpuSlots, layer: int, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        if slots.holds_all:
            self.counters.hits += min(ids.shape[1] * len(ids), self._sizes[1])
            self._add(slots, slots.table_of(layer), hidden, ids, weights, total)
            return self.device.finish(total).to(hidden.dtype)
        step = GpuStep(layer, hidden, ids, weights)
        self._note(slots, step)
        slots.settle()
        missing = [expert for expert in step.experts if slots.policy.slot(layer, expert) is None]
        rows = sorted((step.rows[expert] for expert in missing), reverse=True)
        if not missing:
            self._hit(slots, layer, step.experts)
            self._add(slots, slots.table_of(layer), hidden, ids, weights, total)
        elif self.costs.is_stream_faster(rows, slots.half):
            self._stream(slots, step, set(missing), total)
        else:
            for part, of in blocks(step, max(1, MAX_ROWS // step.active)):
                self._share(slots, part, total[of])
        self._insert(slots, step, missing)
        return self.device.finish(total).to(hidden.dtype)

    def _share(self, slots: GpuSlots, step: GpuStep, total: Tensor) -> None:
        """Compute a few pairs: those of the card, those copied to it, and those of the processor, side by side."""
        device, layer = self.device, step.layer
        # What landing slots and victims were used for is done by then: they take no part in what is asked for below.
        before = device.record()
        here = [expert for expert in step.experts if slots.policy.slot(layer, expert) is not None]
        missing = sorted(set(step.experts).difference(here), key=lambda expert: (-step.rows[expert], expert))
        at_hand = [expert for expert in missing if self.store.holds(layer, expert)]
        copied = sorted(at_hand[: self.costs.copies([step.rows[expert] for expert in at_hand], slots.half)])
        left = sorted(set(missing).difference(copied))
        inputs = step.inputs_of(left)  # to the host before the card has work that this would wait for
        flat = step.hidden.repeat_interleave(step.active, dim=0), step.ids.reshape(-1, 1), step.weights.reshape(-1, 1)
        rows = torch.zeros(flat[0].shape, dtype=torch.float32, device=step.hidden.device)  # [P, H]
        if here:
            self._hit(slots, layer, here)
            self._add(slots, slots.table_of(layer), *flat, rows)
        landed = self._land(slots, copied, self.store.fetch(layer, copied), 0, before) if copied else {}
        if left:
            self._compute(step, left, inputs, rows)
        if copied:
            pairs = step.pairs_of(copied).to(rows.device)
            own = torch.zeros(len(pairs), rows.shape[1], dtype=torch.float32, device=rows.device)
            hidden, ids, weights = (part[pairs] for part in flat)
            self._add(slots, self._table_of(landed), hidden, ids, weights, own)
            device.run(lambda: put_rows(rows, pairs, own))
            self._adopt(slots, layer, landed, step.experts)
        order = step.host_ids.argsort(dim=1, stable=True).to(rows.device)  # [N, A], by ascending experts
        device.run(lambda: add_in_order(total, rows.view(step.tokens, step.active, -1), order))

    def _compute(self, step: GpuStep, experts: Sequence[int], inputs: Tensor, rows: Tensor) -> None:
        """Let the processor compute the pairs of some experts, inputs [P, H] on the host, into their rows."""
        pairs = step.pairs_of(experts)
        flat_ids, flat_weights = step.host_ids.reshape(-1), step.host_weights.reshape(-1)
        before_s = self.store.kernels.use.seconds
        own = self.store.rows(step.layer, inputs, flat_ids[pairs], flat_weights[pairs], step.tokens)
        self.costs.note_cpu(self.store.kernels.use.seconds - before_s, len(experts), len(pairs))
        self.counters.computed += len(experts)
        own, places = own.to(rows.device), pairs.to(rows.device)
        self.device.run(lambda: put_rows(rows, places, own))

    def _stream(self, slots: GpuSlots, step: GpuStep, missing: set[int], total: Tensor) -> None:
        """Compute in ascending order, missing experts landing group by group, each while the one before is computed."""
        self.counters.streamed += 1
        layer, parts = step.layer, groups(step.experts, missing, slots.half)
        records = self.store.fetch(layer, sorted(missing))
        self._hit(slots, layer, [expert for expert in step.experts if expert not in missing])
        lands = [[expert for expert in group if expert in missing] for group in parts]
        landed = self._land(slots, lands[0], records, 0, self.device.record())
        adopted = 0
        for number, group in enumerate(parts):
            following = {}
            if number + 1 < len(parts):
                following = self._land(slots, lands[number + 1], records, (number + 1) % 2, self.device.record())
            stay = {e: slot for e in group if (slot := slots.policy.slot(layer, e)) is not None and e not in missing}
            self._add(slots, self._table_of(landed, stay), step.hidden, step.ids, step.weights, total)
            if adopted < slots.half:  # so many new ones of a layer at most: a prompt does not turn everything over
                adopted += self._adopt(slots, layer, landed, step.experts)
            landed = following
        for _ in records:  # lets the store end its step
            pass

    def _land(
        self, slots: GpuSlots, experts: Sequence[int], records: Iterator[tuple[int, Tensor]], half: int, after: Event
    ) -> dict[int, tuple[int, Event]]:
        """Begin to upload the next of `records`, which are those of some experts; returns their slots and events."""
        landed = {}
        for number, expert in enumerate(experts):
            slot = slots.landing(half, number)
            landed[expert] = slot, slots.upload(next(records)[1], slot, after)
        self.counters.copied += len(landed)
        return landed

    def _table_of(self, landed: dict[int, tuple[int, Event]], stay: dict[int, int] | None = None) -> Tensor:
        """Return a table of experts that have landed, and of some that stay; computing waits for their uploads."""
        table = torch.full((self._sizes[1],), -1, dtype=torch.int32)
        for expert, (slot, event) in landed.items():
            self.device.wait(event)
            table[expert] = slot
        for expert, slot in (stay or {}).items():
            table[expert] = slot
        return table.to(self.device.where)

    def _add(self, slots: GpuSlots, table: Tensor, hidden: Tensor, ids: Tensor, weights: Tensor, out: Tensor) -> None:
        layout = self.layout
        self.device.run(lambda: self.device.add_experts(hidden, ids, weights, table, slots.buffer, layout, out))

    def _hit(self, slots: GpuSlots, layer: int, experts: Sequence[int]) -> None:
        self.counters.hits += len(slots.present(layer, experts))

    def _note(self, slots: GpuSlots, step: GpuStep) -> None:
        """Tell both tiers of a step, and save time for uploads that nobody waits for."""
        counted = min(step.tokens, MOST_STEPS)
        if step.layer <= self._last_layer or self._last_layer < 0:
            self._step += counted
        self._last_layer = step.layer
        self.store.begin(step.layer, step.tokens)
        shares = [min(1.0, step.rows[expert] / step.tokens) for expert in step.experts]
        slots.policy.touch_all(step.layer, step.experts, self._step, shares, counted)
        now_s = self._clock()
        self._saved_s = min(_MOST_SAVED_S, self._saved_s + INSERT_SHARE * (now_s - self._last_s))
        self._last_s = now_s

    def _adopt(
        self, slots: GpuSlots, layer: int, landed: dict[int, tuple[int, Event]], protected: Collection[int]
    ) -> int:
        """Keep what has landed and is used more than what is there: copied within the device, the bus is not needed."""
        adopted = 0
        for expert, (landing, _) in landed.items():
            slot = self._admit(slots, layer, expert, protected)
            if slot is not None:
                slots.adopt(layer, expert, slot, landing)
                adopted += 1
        return adopted

    def _insert(self, slots: GpuSlots, step: GpuStep, missing: Sequence[int]) -> None:
        """Begin to upload the most used of what was missing, as far as its share of the time goes."""
        if self._saved_s < self.costs.copy_s:
            return
        wanted = [e for e in missing if slots.policy.slot(step.layer, e) is None and self.store.holds(step.layer, e)]
        for expert in sorted(wanted, key=lambda e: slots.policy.wait(step.layer, e)):
            slot = self._admit(slots, step.layer, expert, step.experts)
            if slot is None:
                return
            self._upload_one(slots, step.layer, expert, slot)
            self._saved_s -= self.costs.copy_s
            if self._saved_s < self.costs.copy_s:
                return

    def _admit(self, slots: GpuSlots, layer: int, expert: int, protected: Collection[int]) -> int | None:
        is_full = not slots.free
        slot = slots.admit(layer, expert, protected)
        if slot is not None:
            self.counters.inserted += 1
            self.counters.evicted += is_full
        return slot

    def _upload_one(self, slots: GpuSlots, layer: int, expert: int, slot: int) -> None:
        after = self.device.record()  # the victim may be in use by what was asked for so far
        for _, record in self.store.fetch(layer, [expert], is_asked=False):
            slots.keep(layer, expert, slot, record, after)

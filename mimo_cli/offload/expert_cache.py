"""ExpertCache: packed experts in slots of memory, and those that are on their way into one.

A step asks for the experts that one layer needs. Those in memory are there at once, the others arrive one by one; a
slot is never taken from an expert that the step still needs. Who leaves is the policy's choice, who reads the pool's.
One thread asks; the threads of the pool only fill slots.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from mimo_cli.offload.counters import OffloadCounters
from mimo_cli.offload.policy import SlotPolicy
from mimo_cli.offload.read_pool import DEFAULT_THREADS, Fetch, FetchState, ReadPool
from mimo_cli.offload.slot_arena import SlotArena

Fill = Callable[[int, int, Tensor, int], None]
"""Reads one part of an expert of a layer into a slot, uint8 [slot bytes]; called by several threads. Raises where that
fails."""

_READS_PER_THREAD = 2

_CYCLE_PARTS = 2
"""A layer's floor is its share of the slots divided by this, or what one token needs if that is less."""


class ExpertCache:
    """`slots` slots for experts of `layers`, at most `experts` in each; `step_slots` of a layer are needed at once.

    Each expert is filled in `parts` parts, by several of the `threads`.
    """

    def __init__(
        self,
        fill: Fill,
        record_bytes: int,
        slots: int,
        layers: Sequence[int],
        experts: int,
        step_slots: int = 1,
        threads: int = DEFAULT_THREADS,
        parts: int = 1,
    ) -> None:
        self.counters = OffloadCounters()
        self._experts_total = len(layers) * experts
        self.capacity = max(1, min(slots, len(layers) * experts))
        floor = min(step_slots, self.capacity // (_CYCLE_PARTS * max(1, len(layers))))
        self.policy = SlotPolicy(self.capacity, layers, experts, floor)
        self.record_bytes = record_bytes
        self.step = 0
        self._fill = fill
        self._parts = parts
        self._arena = SlotArena(self.capacity, record_bytes)
        self._pool = ReadPool(self._work, threads)
        self._window = _READS_PER_THREAD * threads  # a prompt reads so far ahead of what is computed, and no farther
        self._free = list(range(self.capacity - 1, -1, -1))
        self._touched: set[int] = set()  # slots that have memory
        self._withdrawn: list[int] = []  # slots that a smaller budget took away
        self._coming: dict[tuple[int, int], Fetch] = {}
        self._unused: set[tuple[int, int]] = set()  # read ahead and not asked for yet
        self._is_asking = False
        self._held: set[int] = set()  # slots of a step of few tokens that is being computed

    def __len__(self) -> int:
        """Return the number of experts in memory."""
        return self.capacity - len(self._free) - len(self._withdrawn) - len(self._coming)

    @property
    def slots_in_memory(self) -> int:
        """Slots that have memory: those that were used, and were not given back."""
        return len(self._touched)

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken for slots, in use or free."""
        return len(self._touched) * self._arena.slot_bytes

    @property
    def holds_all(self) -> bool:
        """Tell whether there is a slot for every expert there is."""
        return self.limit >= self._experts_total

    @property
    def is_asking(self) -> bool:
        """Tell whether a step is under way, or was interrupted and not cleared away yet."""
        return self._is_asking

    @property
    def is_idle(self) -> bool:
        """Tell whether no read is under way."""
        return self._pool.is_idle

    def note(self, layer: int, experts: Sequence[int], shares: Sequence[float] | None = None, tokens: int = 1) -> None:
        """Tell the policy what a layer uses in this pass."""
        self.policy.touch_all(layer, experts, self.step, shares, tokens)

    def arriving(self, layer: int, experts: Sequence[int], *, in_order: bool) -> Iterator[list[tuple[int, int]]]:
        """Yield all of some experts of a layer as they are there, in lists of (place in `experts`, address).

        Addresses hold until the next list is asked for. Not `in_order`, those in memory come first and the others as
        they arrive; all must fit. In order, `experts` may be more than there are slots, and the lists follow it.
        Raises what reading raises; the experts that arrived are kept.
        """
        self._recover()
        self._is_asking = True
        try:
            yield from self._in_order(layer, experts) if in_order else self._as_they_come(layer, experts)
        finally:
            self.counters.read_s = self._pool.busy_s
            self._held = set()
        self._is_asking = False

    def record(self, address: int) -> Tensor:
        """Return the bytes of an expert that `arriving` named, uint8; they hold as long as its address."""
        return self._arena.at(address)

    def layer_slots(self, layer: int) -> tuple[Tensor, int, int]:
        """Return the slot of every expert of a layer, int32 [experts] that changes with the cache (negative: none), the
        address of slot 0, and the bytes of a slot."""
        return torch.from_numpy(self.policy.layer_slots(layer)), self._arena.address(0), self._arena.slot_bytes

    def count_hits(self, experts: int) -> None:
        """Count experts that were found and used in their slots."""
        self.counters.hits += experts
        self.counters.ram_bytes += experts * self.record_bytes

    def holds(self, layer: int, expert: int) -> bool:
        """Tell whether an expert is in memory, read to its end."""
        return self.policy.slot(layer, expert) is not None

    def read_ahead(self, layer: int, experts: Sequence[int], limit: int) -> None:
        """Begin to read up to `limit` experts that a layer will probably need, after all that a step waits for.

        Also while a step of few tokens is computed: its experts keep their slots.
        """
        self._settle()
        wanted = [expert for expert in experts if self.policy.slot(layer, expert) is None][:limit]
        spared = {slot for expert in experts if (slot := self.policy.slot(layer, expert)) is not None} | self._held
        for expert in wanted:
            if (layer, expert) not in self._coming:
                slot = self._take_slot(spared)
                if slot is None:
                    return
                self._begin(layer, expert, slot, is_ahead=True)

    def warm(self) -> None:
        """Begin to read the experts that were used most before into free slots; whatever a step needs goes first."""
        self._recover()
        for layer, expert in self.policy.best(len(self._free)):
            if self._free and self.policy.slot(layer, expert) is None and (layer, expert) not in self._coming:
                self._begin(layer, expert, self._free.pop(), is_ahead=True)

    def resize(self, slots: int) -> None:
        """Keep to `slots` slots from now on, at least one: experts leave, and their memory goes back to the system.

        More than the slots there were at first are not possible. Between two steps only.
        """
        self._recover()
        wanted = max(1, min(slots, self.capacity))
        if wanted < self.limit:
            self._stop_reading()
        while self.limit > wanted:
            slot = self._take_slot(())
            if slot is None:
                break
            self._arena.release(slot)
            self._touched.discard(slot)
            self._withdrawn.append(slot)
        while self._withdrawn and self.limit < wanted:
            self._free.insert(0, self._withdrawn.pop())  # those that have memory are used first

    @property
    def limit(self) -> int:
        """Slots that may be used now."""
        return self.capacity - len(self._withdrawn)

    def clear(self) -> None:
        """Forget all experts and give their memory back; counters and what the policy knows stay."""
        self._recover()
        self._stop_reading()
        for slot in range(self.capacity):
            if self.policy.holds(slot) is not None:
                self.policy.remove(slot)
            self._arena.release(slot)
        self._touched.clear()
        self._free = [slot for slot in range(self.capacity - 1, -1, -1) if slot not in self._withdrawn]

    def close(self) -> None:
        """Forget all experts and end the reading."""
        self._pool.close()
        self._coming.clear()
        self.clear()

    def _as_they_come(self, layer: int, experts: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        there, waiting = self._ask(layer, experts)
        self._held = {slot for _, slot in there} | {fetch.slot for fetch in waiting.values()}
        if there:
            yield [(place, self._arena.address(slot)) for place, slot in there]
        while waiting:
            arrived = self._arrived(waiting)
            waiting = {place: fetch for place, fetch in waiting.items() if place not in arrived}
            yield [(place, self._arena.address(slot)) for place, slot in arrived.items()]

    def _in_order(self, layer: int, experts: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        asked, place = 0, 0
        waiting: dict[int, Fetch] = {}
        slots: dict[int, int] = {}
        self._settle()
        found = [(expert, self.policy.slot(layer, expert)) for expert in experts]
        later = {expert: slot for expert, slot in found if slot is not None}  # there already, and needed later
        while place < len(experts):
            # Ask for as many as there is room for: those not computed yet keep their slots.
            while asked < len(experts) and (
                asked == place
                or experts[asked] in later
                or (len(waiting) < self._window and len(slots) + len(waiting) + len(later) < self.limit)
            ):
                later.pop(experts[asked], None)
                held = {*slots.values(), *(fetch.slot for fetch in waiting.values())}
                there, coming = self._ask(layer, experts[asked : asked + 1], held, later)
                if there:
                    slots[asked] = there[0][1]
                else:
                    waiting[asked] = coming[0]
                asked += 1
            if place in waiting:
                slots |= self._arrived({place: waiting.pop(place)})
            ready = [place]
            while (following := ready[-1] + 1) < asked:
                if following in waiting and waiting[following].is_over:
                    slots |= self._arrived({following: waiting.pop(following)})
                if following not in slots:
                    break
                ready.append(following)
            yield [(at, self._arena.address(slots[at])) for at in ready]
            for at in ready:
                del slots[at]
            place = ready[-1] + 1

    def _ask(
        self, layer: int, experts: Sequence[int], held: set[int] | None = None, later: dict[int, int] | None = None
    ) -> tuple[list[tuple[int, int]], dict[int, Fetch]]:
        """Return the slots of the experts that are there, and the fetches of the others, both by place.

        held: slots that must stay. later: experts and slots that should stay, the one to give up first last.
        """
        self._settle()
        spared = set() if held is None else set(held)
        there, missing = [], []
        for place, expert in enumerate(experts):
            slot = self.policy.slot(layer, expert)
            if slot is None:
                missing.append(place)
            else:
                there.append((place, slot))
                spared.add(slot)
                self._use_ahead((layer, expert))
        self.counters.hits += len(there)
        self.counters.ram_bytes += len(there) * self.record_bytes
        self.counters.misses += len(missing)
        self._cancel_ahead(layer, {experts[place] for place in missing})
        coming = {place: self._coming_now(layer, experts[place]) for place in missing}
        spared |= {fetch.slot for fetch in coming.values() if fetch is not None}
        waiting = {}
        for place in missing:
            fetch = coming[place]
            if fetch is None:
                slot = self._slot_for(spared, {} if later is None else later)
                spared.add(slot)
                fetch = self._begin(layer, experts[place], slot, is_ahead=False)
            waiting[place] = fetch
        return there, waiting

    def _coming_now(self, layer: int, expert: int) -> Fetch | None:
        """Return the fetch of an expert that is on its way, urgent from now on; None where there is none."""
        fetch = self._coming.get((layer, expert))
        if fetch is not None and fetch.is_stopped:  # taken back, but a part was under way
            self._pool.wait_all([fetch])
            self._settle()
            return None
        if fetch is not None:
            self._use_ahead((layer, expert))
            self._pool.promote(fetch)
        return fetch

    def _slot_for(self, spared: set[int], later: dict[int, int]) -> int:
        slot = self._take_slot({*spared, *later.values()})
        if slot is None and later:  # only experts of this very layer are left: the one needed last goes
            slot = later.popitem()[1]
            self._evict(slot)
        if slot is None:  # what is read ahead holds the rest
            self._stop_reading([fetch for fetch in self._coming.values() if fetch.is_ahead])
            slot = self._take_slot(spared)
        if slot is None:
            raise ValueError(f"{len(spared) + 1} experts do not fit in {self.limit} slots")
        return slot

    def _take_slot(self, spared: Collection[int]) -> int | None:
        """Return a slot that nobody owns any more: a free one, else that of the policy's choice; None if all stay."""
        if self._free:
            return self._free.pop()
        slot = self.policy.victim(spared)
        if slot is not None:
            self._evict(slot)
        return slot

    def _use_ahead(self, key: tuple[int, int]) -> None:
        if key in self._unused:
            self._unused.discard(key)
            self.counters.used_prefetch += 1

    def _evict(self, slot: int) -> None:
        key = self.policy.holds(slot)
        self.policy.remove(slot)
        self.counters.evictions += 1
        if key in self._unused:
            self._unused.discard(key)
            self.counters.wasted_prefetch += 1

    def _begin(self, layer: int, expert: int, slot: int, *, is_ahead: bool) -> Fetch:
        fetch = Fetch(layer, expert, slot, is_ahead, self._parts)
        self._coming[layer, expert] = fetch
        if is_ahead:
            self._unused.add((layer, expert))
            self.counters.prefetched += 1
        self._touched.add(slot)
        self._pool.submit([fetch])
        return fetch

    def _arrived(self, waiting: dict[int, Fetch]) -> dict[int, int]:
        """Wait until some fetches are over; returns their slots by place. Raises the error of one that failed."""
        if not any(fetch.is_over for fetch in waiting.values()):
            self.counters.wait_s += self._pool.wait_any(waiting.values())
        over = {place: fetch for place, fetch in waiting.items() if fetch.is_over}
        failed = next((fetch for fetch in over.values() if fetch.error is not None), None)
        self._settle()
        if failed is not None and failed.error is not None:
            raise failed.error
        if any(fetch.state is not FetchState.done for fetch in over.values()):
            raise RuntimeError("a read that a step waits for was taken back")
        return {place: fetch.slot for place, fetch in over.items()}

    def _settle(self) -> None:
        """Take note of the fetches that are over."""
        for key, fetch in [item for item in self._coming.items() if item[1].is_over]:
            if fetch.state is FetchState.done:
                self.policy.place(fetch.slot, *key)
            else:
                self._free.append(fetch.slot)
                if key in self._unused:  # a part of it may have been read, for nothing
                    self._unused.discard(key)
                    self.counters.wasted_prefetch += fetch.begun > 0
                    self.counters.prefetched -= fetch.begun == 0
            del self._coming[key]

    def _cancel_ahead(self, layer: int, needed: set[int]) -> None:
        """Take back what is still waiting to be read ahead, and is not what a step needs now."""
        stale = [f for f in self._coming.values() if f.is_ahead and not (f.layer == layer and f.expert in needed)]
        if stale:
            self._pool.cancel(stale)
            self._settle()

    def _stop_reading(self, fetches: Iterable[Fetch] | None = None) -> None:
        """Take back some fetches, by default all, and wait for those that had begun."""
        stopped = list(self._coming.values()) if fetches is None else list(fetches)
        self._pool.cancel(stopped)
        self._pool.wait_all(stopped)
        self._settle()

    def _recover(self) -> None:
        """After a pass that was interrupted: let its reads end, and find the slots that nobody owns."""
        if not self._is_asking:
            return
        self._stop_reading()
        self._coming.clear()
        taken = set(self._withdrawn)
        self._free = [s for s in range(self.capacity - 1, -1, -1) if s not in taken and self.policy.holds(s) is None]
        self._is_asking = False

    def _work(self, fetch: Fetch, part: int) -> None:
        self._fill(fetch.layer, fetch.expert, self._arena.slot(fetch.slot), part)

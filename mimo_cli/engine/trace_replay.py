"""Replaying routing traces: what share of experts a cache of so many slots would have found, under several policies.

    lru      the least recently used expert leaves
    ours     the expert cache of every run, its own class, with reads that read nothing
    optimum  the expert whose next use is farthest away leaves (Belady): no policy that must load what it uses is better

A decoded token asks a layer's experts at once, and none of them may leave for another. Experts of a prompt come one by
one, in ascending order, as the expert store computes them.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from mimo_cli.engine.routing_trace import RoutingTrace, TracedPass
from mimo_cli.offload.expert_cache import ExpertCache
from mimo_cli.offload.expert_store import MOST_STEPS

Key: TypeAlias = tuple[int, int]
PolicyName: TypeAlias = Literal["lru", "ours", "optimum"]

_FAR = 1 << 60


@dataclass(frozen=True)
class Hits:
    """Experts asked for and found, of decoded tokens alone and of all passes."""

    decode_asked: int
    decode_hits: int
    asked: int
    hits: int

    @property
    def decode_rate(self) -> float:
        """Share found, of decoded tokens; 0 where there were none."""
        return self.decode_hits / self.decode_asked if self.decode_asked else 0.0

    @property
    def rate(self) -> float:
        """Share found, of everything."""
        return self.hits / self.asked if self.asked else 0.0


@dataclass(frozen=True)
class ReplayRow:
    """What one number of slots would have given. `gap_closed` is the share of the way from LRU to the optimum."""

    slots: int
    slots_share: float
    lru: Hits
    ours: Hits
    optimum: Hits

    @property
    def gap_closed(self) -> float | None:
        """Of the way from LRU to the optimum, over decoded tokens; None where there is no way."""
        gap = self.optimum.decode_rate - self.lru.decode_rate
        return (self.ours.decode_rate - self.lru.decode_rate) / gap if gap > 0 else None


def replay(trace: RoutingTrace, slots: int, warm_passes: int = 0) -> ReplayRow:
    """Replay a trace under all three policies; the first `warm_passes` passes fill the slots and are not counted."""
    share = slots / max(1, len(trace.layers) * trace.experts)
    lru, ours, optimum = (policy(trace, slots, warm_passes) for policy in (replay_lru, replay_ours, replay_optimum))
    return ReplayRow(slots, share, lru, ours, optimum)


def replay_lru(trace: RoutingTrace, slots: int, warm_passes: int = 0) -> Hits:
    """Count what the least recently used order would have found."""
    resident: OrderedDict[Key, None] = OrderedDict()  # least recently used first

    def ask(keys: list[Key]) -> int:
        missing = [key for key in keys if key not in resident]
        for key in keys:
            if key in resident:
                resident.move_to_end(key)
        for key in missing:
            if len(resident) >= slots:
                resident.popitem(last=False)
            resident[key] = None
        return len(keys) - len(missing)

    return _count(trace, warm_passes, slots, ask)


def replay_optimum(trace: RoutingTrace, slots: int, warm_passes: int = 0) -> Hits:
    """Count what the best possible choice would have found, which needs to know the future."""
    next_uses = _next_uses(trace, slots)
    resident: dict[Key, int] = {}
    farthest: list[tuple[int, Key]] = []  # (-next use, key); entries whose next use has changed are stale
    at = 0

    def ask(keys: list[Key]) -> int:
        nonlocal at
        missing = [key for key in keys if key not in resident]
        asked = set(keys)
        held: list[tuple[int, Key]] = []
        while missing and len(resident) + len(missing) > slots and farthest:
            entry = heapq.heappop(farthest)
            if resident.get(entry[1]) != -entry[0]:
                continue
            if entry[1] in asked:
                held.append(entry)
                continue
            del resident[entry[1]]
        for entry in held:
            heapq.heappush(farthest, entry)
        for key, next_use in zip(keys, next_uses[at], strict=True):
            resident[key] = next_use
            heapq.heappush(farthest, (-next_use, key))
        at += 1
        return len(keys) - len(missing)

    return _count(trace, warm_passes, slots, ask)


def replay_ours(trace: RoutingTrace, slots: int, warm_passes: int = 0) -> Hits:
    """Count what the expert cache would have found: it is that cache, fed as the expert store feeds it."""
    cache = ExpertCache(_read_nothing, 1, slots, trace.layers, trace.experts, trace.active, threads=1)
    counted = [Hits(0, 0, 0, 0)]
    try:
        for at, one in enumerate(trace.passes):
            steps = min(one.tokens, MOST_STEPS)
            cache.step += steps
            for row, layer in enumerate(trace.layers):
                experts = sorted(one.experts[row])
                shares = None
                if one.tokens > 1:
                    by_expert = dict(zip(one.experts[row], one.counts[row], strict=True)) if one.counts else {}
                    shares = [by_expert.get(expert, trace.active) / one.tokens for expert in experts]
                cache.note(layer, experts, shares, steps)
                before = cache.counters.hits
                fits = one.tokens == 1 and len(experts) <= cache.limit
                for _ in cache.arriving(layer, experts, in_order=not fits):
                    pass
                if at >= warm_passes:
                    counted[0] = _plus(counted[0], one, len(experts), cache.counters.hits - before)
    finally:
        cache.close()
    return counted[0]


def _read_nothing(layer: int, expert: int, slot: Tensor, part: int) -> None:
    """Stand in for a read: which experts are there does not depend on their bytes."""


def _count(trace: RoutingTrace, warm_passes: int, slots: int, ask: Callable[[list[Key]], int]) -> Hits:
    found = Hits(0, 0, 0, 0)
    for at, one in enumerate(trace.passes):
        for keys in _groups(trace, one, slots):
            hits = ask(keys)
            if at >= warm_passes:
                found = _plus(found, one, len(keys), hits)
    return found


def _groups(trace: RoutingTrace, one: TracedPass, slots: int) -> Iterator[list[Key]]:
    """Yield what is asked for together: a layer's experts of a decoded token, single experts of a prompt."""
    for layer, experts in zip(trace.layers, one.experts, strict=True):
        if one.tokens == 1 and len(experts) <= slots:
            yield [(layer, expert) for expert in experts]
        else:
            yield from ([(layer, expert)] for expert in sorted(experts))


def _next_uses(trace: RoutingTrace, slots: int) -> list[list[int]]:
    """Return, for every group and key, the number of the group that asks for it next."""
    groups = [keys for one in trace.passes for keys in _groups(trace, one, slots)]
    upcoming: dict[Key, int] = {}
    found: list[list[int]] = [[] for _ in groups]
    for at in range(len(groups) - 1, -1, -1):
        found[at] = [upcoming.get(key, _FAR) for key in groups[at]]
        for key in groups[at]:
            upcoming[key] = at
    return found


def _plus(hits: Hits, one: TracedPass, asked: int, found: int) -> Hits:
    decoded = one.tokens == 1
    return Hits(
        hits.decode_asked + decoded * asked, hits.decode_hits + decoded * found, hits.asked + asked, hits.hits + found
    )

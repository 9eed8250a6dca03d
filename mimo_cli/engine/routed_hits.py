"""How often memory will hold a token's experts, for a routing that is known: a recorded trace, or none at all.

For ordinary text nobody knows better than the experience in speed_model.py.
"""

from collections.abc import Callable
from pathlib import Path

from mimo_cli.engine.placement import Placement
from mimo_cli.engine.routing_trace import read_trace
from mimo_cli.engine.speed_model import Span
from mimo_cli.engine.trace_replay import replay_ours

_WARM_SHARE = 0.25
"""Of a trace's passes: they fill the slots and do not count."""


def routed_hits(routing: str | None, trace: Path | None) -> Callable[[Placement], Span | None]:
    """Return what tells the hit rate of a placement; None for ordinary text.

    routing "uniform": every expert is as likely as any other, so what is there by share is found by share. A trace is
    replayed by the expert cache itself, with as many slots as the placement has of all experts. Raises UsageError for
    a trace that cannot be read.
    """
    if trace is not None:
        recorded = read_trace(trace)
        known: dict[int, Span] = {}

        def replayed(placement: Placement) -> Span:
            count = len(recorded.layers) * recorded.experts
            slots = max(recorded.active, round(placement.resident_share * count))
            if slots not in known:
                rate = replay_ours(recorded, slots, int(_WARM_SHARE * len(recorded.passes))).decode_rate
                known[slots] = Span(rate, rate)
            return known[slots]

        return replayed
    if routing == "uniform":
        return lambda placement: Span(placement.resident_share, placement.resident_share)
    return lambda placement: None

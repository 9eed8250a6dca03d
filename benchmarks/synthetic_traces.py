"""Routing traces made up by rules, where none of a trained model is at hand.

An expert's chance rests on its popularity for ever (Zipf's law), its popularity within a topic that lasts for some
hundred tokens, and a mood of its own that fades over some tens; every token adds noise. The kinds differ in how much
each has to say:

    zipf      popularity for ever alone: nothing is ever forgotten
    topics    the popular experts change with the topic: the flat profile over distances that large models show
              (a quarter of the experts again at the next token, nearly as many eight tokens later)
    mixed     popularity, topics and moods together
    recent    moods above all: what was used just now is used again, and little else is known
"""

from dataclasses import dataclass

import numpy as np

from mimo_cli.engine.routing_trace import RoutingTrace, TracedPass


@dataclass(frozen=True)
class TraceKind:
    """zipf: exponent; topic, mood: spreads of those parts; keep: of a mood per token; topic_tokens: length of one."""

    zipf: float
    topic: float
    mood: float
    keep: float = 0.9
    topic_tokens: int = 200


KINDS = {
    "zipf": TraceKind(1.0, 0.0, 0.0),
    "topics": TraceKind(0.3, 1.8, 0.8, topic_tokens=250),
    "mixed": TraceKind(0.6, 1.6, 1.2, keep=0.8, topic_tokens=150),
    "recent": TraceKind(0.2, 0.8, 1.8, keep=0.95),
}


def synthetic_trace(
    name: str, tokens: int = 600, layers: int = 12, experts: int = 256, active: int = 8, seed: int = 0
) -> RoutingTrace:
    """Return a trace of single tokens; the same arguments, the same trace."""
    kind, draw = KINDS[name], np.random.default_rng(seed)
    rows: list[list[tuple[int, ...]]] = [[] for _ in range(tokens)]
    for _ in range(layers):
        popularity = -kind.zipf * np.log(np.arange(1, experts + 1))
        draw.shuffle(popularity)
        mood, topic = draw.normal(size=experts), np.zeros(experts)
        for token in range(tokens):
            if token % kind.topic_tokens == 0:
                topic = draw.normal(size=experts)
            mood = kind.keep * mood + (1 - kind.keep**2) ** 0.5 * draw.normal(size=experts)
            score = popularity + kind.topic * topic + kind.mood * mood + draw.gumbel(size=experts)
            rows[token].append(tuple(int(i) for i in np.argsort(-score)[:active]))
    passes = tuple(TracedPass(1, tuple(row)) for row in rows)
    return RoutingTrace(f"synthetic, {name}", tuple(range(1, layers + 1)), experts, active, passes)

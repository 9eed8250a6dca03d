"""What a model would say had it been made to read the right answers: logits along given ids, media included.

Nothing is sampled here, so two models can be compared token by token and likelihoods be measured.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_cli.api import Engine
from mimo_cli.chat.messages import Message, TextPart
from mimo_cli.engine.engine import Engine as LoadedEngine
from mimo_cli.evaluation.item import Item
from mimo_cli.media.prompt import Prompt

TEXT_WINDOW_TOKENS = 1024
"""A text is read in windows of so many tokens, each without knowledge of the one before."""

ANSWERS_PER_TASK = 25
"""Right answers of each task that are read, unless told otherwise."""


@dataclass(frozen=True)
class Reading:
    """Ids to be read, of which those from `start` on are predicted (a text: all but its first)."""

    prompt: Prompt
    start: int

    @property
    def targets(self) -> tuple[int, ...]:
        """The ids that are predicted."""
        return self.prompt.ids[self.start :]


@dataclass(frozen=True)
class Likelihood:
    """Of `tokens` predicted tokens: mean negative log-likelihood in nats."""

    mean_nll: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the mean; infinite where that is no number."""
        return math.exp(self.mean_nll) if self.mean_nll < 700 else math.inf


def answer_reading(engine: Engine, item: Item) -> Reading | None:
    """Return an item's prompt with its right answer and the end of the turn, as the chat template writes them.

    None where the template changes the prompt when an answer follows. Raises what opening the media raises.
    """
    builder, messages = engine.speaker.builder, item.read(engine.media_opener)
    answer = Message(
        "assistant",
        (TextPart(item.answers[0]),) if item.scoring != "tool_calls" else (),
        reasoning="",
        tool_calls=item.tool_calls,
    )
    tools = list(item.tools) or None
    prompt = builder.build(messages, tools, thinking=False)
    whole = builder.build([*messages, answer], tools, thinking=False, add_generation_prompt=False)
    if whole.ids[: len(prompt)] != prompt.ids:
        return None
    stops = [i for i in range(len(prompt), len(whole)) if whole.ids[i] in engine.speaker.stop_ids]
    return Reading(whole.head(stops[0] + 1 if stops else len(whole)), len(prompt))


def answer_readings(
    engine: Engine, items: Iterable[Item], per_task: int = ANSWERS_PER_TASK
) -> Iterator[tuple[str, Reading]]:
    """Yield task and reading of the first items of each task, as `answer_reading`."""
    taken: dict[str, int] = {}
    for item in items:
        if taken.get(item.task, 0) < per_task:
            reading = answer_reading(engine, item)
            if reading is not None:
                taken[item.task] = taken.get(item.task, 0) + 1
                yield item.task, reading


def text_readings(ids: Sequence[int], window_tokens: int = TEXT_WINDOW_TOKENS) -> Iterator[Reading]:
    """Cut a text into windows of which each predicts all tokens but its first."""
    for start in range(0, len(ids), window_tokens):
        window = tuple(ids[start : start + window_tokens])
        if len(window) > 1:
            yield Reading(Prompt(window), 1)


def reading_logits(engine: LoadedEngine, reading: Reading) -> Tensor:
    """Return the logits [n, V] float32 that predict the reading's n targets."""
    sequence = engine.start_sequence(len(reading.prompt))
    with torch.inference_mode():
        states = torch.cat(list(sequence.read(reading.prompt)))  # [T, H]
        return engine.decoder.logits(states[reading.start - 1 : -1]).float()


def likelihood(logits: Tensor, targets: Sequence[int]) -> Likelihood:
    """Return how well logits [n, V] predict n ids."""
    wanted = torch.tensor(targets)[:, None]
    nll = -logits.double().log_softmax(-1).gather(1, wanted)
    return Likelihood(float(nll.mean()), len(targets))


def join(parts: Sequence[Likelihood]) -> Likelihood:
    """Return the likelihood over the tokens of several readings."""
    tokens = sum(part.tokens for part in parts)
    return Likelihood(sum(part.mean_nll * part.tokens for part in parts) / tokens, tokens)

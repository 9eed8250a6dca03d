"""Asking a model the items and judging its answers: greedily, each in a conversation of its own, as chat would.

items -> ask -> Outcome -> Results (figures in results.py)
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from mimo_cli.api import Engine
from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.messages import Generated, ToolCall
from mimo_cli.dialogue import Dialogue, TurnOptions
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.errors import CapacityError, CheckpointError, MimoError
from mimo_cli.evaluation.acceptance import Acceptance, answer_acceptance
from mimo_cli.evaluation.item import Item
from mimo_cli.evaluation.results import Outcome, Results
from mimo_cli.evaluation.scoring import score_answer
from mimo_cli.media.prompt import Prompt

DRAFTED_PER_TASK = 25
"""Answers of each task along which the MTP modules are judged: it costs reading them once more."""

_EXTRA_TOKENS, _THINKING_TOKENS, _CALL_TOKENS = 16, 512, 64
_SENSE_NAMES = {"image": "see pictures", "video": "see films", "audio": "hear"}


def run(
    engine: Engine,
    items: Iterable[Item],
    on_outcome: Callable[[Outcome], None] | None = None,
    *,
    drafted_per_task: int = DRAFTED_PER_TASK,
) -> Results:
    """Ask all items and return the results; `on_outcome` hears of each answer as it is judged.

    Items whose media cannot be read, or that do not fit, are results with an error; the others are judged without
    them. Raises what a damaged checkpoint or too little memory raises.
    """
    results = Results()
    for outcome in outcomes(engine, items, drafted_per_task=drafted_per_task):
        results.add(outcome)
        if on_outcome:
            on_outcome(outcome)
    return results


def outcomes(engine: Engine, items: Iterable[Item], *, drafted_per_task: int = DRAFTED_PER_TASK) -> Iterator[Outcome]:
    """Yield the outcome of each item when it is known; as `run`."""
    examiner = Examiner(engine, drafted_per_task)
    return map(examiner.ask, items)


def missing_senses(engine: Engine, items: Iterable[Item]) -> Collection[str]:
    """Return what the items ask for and the model cannot do, in words: `hear`."""
    able = {"image": engine.core.has_vision, "video": engine.core.has_vision, "audio": engine.core.has_audio}
    wanted = {sense for item in items for sense in item.senses}
    return sorted(_SENSE_NAMES[sense] for sense in wanted if not able[sense])


@dataclass
class Examiner:
    """Asks one model. Prompts begin alike, so what they share stays in the KV cache."""

    engine: Engine
    drafted_per_task: int = DRAFTED_PER_TASK

    def __post_init__(self) -> None:
        self._dialogue = Dialogue(self.engine.speaker)
        self._drafted: dict[str, int] = {}

    def ask(self, item: Item) -> Outcome:
        """Return the outcome of one item; an item that cannot be asked has an error in it."""
        started_s = time.perf_counter()
        try:
            return self._asked(item, started_s)
        except (CheckpointError, CapacityError):
            raise
        except MimoError as err:
            return Outcome(item, error=str(err), seconds=time.perf_counter() - started_s)

    def _asked(self, item: Item, started_s: float) -> Outcome:
        self._dialogue.conversation = Conversation(item.read(self.engine.media_opener), list(item.tools) or None)
        params = SamplingParams(temperature=0, max_tokens=self._answer_limit(item))
        answer = self._dialogue.answer(TurnOptions(params, thinking=item.thinking, loop_guard=False))
        for _ in answer:
            pass
        if answer.finished is None:
            raise MimoError(f"the answer to item {item.id} did not end")
        message, reason = answer.finished.message, answer.finished.finish_reason
        seconds = time.perf_counter() - started_s
        acceptance = self._acceptance(item, answer.prompt, message.generated, reason in ("stop", "tool_calls"))
        return Outcome(
            item, message.text, message.tool_calls, reason, score_answer(item, message), acceptance, seconds=seconds
        )

    def _answer_limit(self, item: Item) -> int:
        """Return how many tokens an answer may have: enough for every right one, and to see that one is wrong."""
        encode = self.engine.tokenizer.encode
        texts = [*item.answers, *(_spelled(call) for call in item.tool_calls)]
        longest = max((len(encode(text, added_tokens=False)) for text in texts), default=0)
        extra = _THINKING_TOKENS * item.thinking + _CALL_TOKENS * len(item.tool_calls)
        return longest * 3 // 2 + _EXTRA_TOKENS + extra

    def _acceptance(
        self, item: Item, prompt: Prompt, generated: Generated | None, has_stopped: bool
    ) -> Acceptance | None:
        done = self._drafted.get(item.task, 0)
        if generated is None or not self.engine.core.mtp or done >= self.drafted_per_task:
            return None
        self._drafted[item.task] = done + 1
        return answer_acceptance(self.engine, prompt, generated.ids, has_stopped)


def _spelled(call: ToolCall) -> str:
    return json.dumps([call.name, call.arguments], ensure_ascii=False)

"""One answer while it is written: engine steps in, chat events out, with the reins in the caller's hands.

    Conversation -> Prompt -> generate -> ids -> ReplyReader -> stop texts -> events, the last one Finished
                                 ^ ThinkingControl forces the end of reasoning (budget, loop, the user)

The next prompt of the same conversation begins with what the KV cache holds, so a turn reads only what is new.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.events import Event, Finished, FinishReason, Notice, TextDelta
from mimo_cli.chat.loop_guard import LoopGuard
from mimo_cli.chat.messages import Message, TextPart
from mimo_cli.chat.prompt_builder import PromptBuilder
from mimo_cli.chat.reply import ReplyReader
from mimo_cli.chat.thinking import ThinkingControl
from mimo_cli.engine.generate import generate
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.engine.sequence import Sequence as Timeline
from mimo_cli.engine.stats import GenerationStats, OnProgress

LONG_THINKING_TOKENS = 8192

_LOOP_NOTICES = {
    "thinking": "the reasoning repeated itself and was ended",
    "answer": "the answer repeats itself",
}


@dataclass(frozen=True)
class AnswerOptions:
    """How an answer is to be written. `sampling` needs no stop_ids and banned_ids: the model's own are added.

    thinking       let the model reason first; think_budget_tokens ends that after so many tokens (None: no bound)
    loop_guard     end reasoning that repeats itself, and say so of an answer
    stop_texts     the answer ends before any of these
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    thinking: bool = True
    think_budget_tokens: int | None = None
    loop_guard: bool = True
    stop_texts: Sequence[str] = ()


class TokenRules(Protocol):
    """What a model's folder says about ids: which end an answer, which stand for no text."""

    @property
    def stop_ids(self) -> Collection[int]:
        """Ids that end an answer."""

    @property
    def banned_ids(self) -> Collection[int]:
        """Ids that are never chosen."""


class Answer(Iterator[Event]):
    """The next answer of a conversation: iterate for its events, the last of which is Finished.

    When that comes, the conversation has the answer. `stats` and the other properties are right at any moment. An
    interrupted `next` (Ctrl-C) may be called again and goes on with the token that was under way.
    """

    def __init__(
        self,
        rules: TokenRules,
        sequence: Timeline,
        conversation: Conversation,
        builder: PromptBuilder,
        options: AnswerOptions,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Raises UsageError where the messages cannot be rendered; nothing is read before the first `next`."""
        self._conversation = conversation
        self._options = options
        self._tools = conversation.tools
        self._tokenizer = builder.tokenizer
        self._prompt = conversation.prompt(builder, thinking=options.thinking)
        guard = LoopGuard() if options.loop_guard else None
        self._control = ThinkingControl(builder.tokenizer, budget_tokens=options.think_budget_tokens, guard=guard)
        self._params = replace(options.sampling, stop_ids=rules.stop_ids, banned_ids=rules.banned_ids)
        self._generation = generate(sequence, self._prompt, self._params, on_progress=on_progress, force=self._control)
        self._reader: ReplyReader | None = None
        self._stop_text = StopText(options.stop_texts)
        self._events: deque[Event] = deque()
        self._finished: Finished | None = None
        self._is_cancelled = False
        self._noticed: set[str] = set()

    @property
    def stats(self) -> GenerationStats:
        """What the answer has cost so far."""
        return self._generation.stats

    @property
    def think_tokens(self) -> int:
        """Tokens of reasoning so far, its closing tag included."""
        return self._reader.reasoning_tokens if self._reader else 0

    @property
    def is_reading(self) -> bool:
        """Tell whether the prompt is still being read."""
        return self.stats.generated_tokens == 0

    @property
    def is_thinking(self) -> bool:
        """Tell whether reasoning is being written."""
        return self._control.is_thinking

    def end_thinking(self) -> None:
        """Ask for the answer: the reasoning ends with the next token."""
        self._control.end_thinking()

    def cancel(self) -> None:
        """Ask for the end: the events end, with Finished, without another token."""
        self._is_cancelled = True

    def __next__(self) -> Event:
        while not self._events:
            if self._finished:
                raise StopIteration
            if self._is_cancelled:
                self._finish("cancelled")
            else:
                self._take_step()
        return self._events.popleft()

    def _take_step(self) -> None:
        step = next(self._generation)
        self._show(self._reply_reader().push(step.token))
        self._notice()
        if self._stop_text.is_hit:
            self._finish("stop")
        elif step.finish_reason:
            self._finish(step.finish_reason)

    def _reply_reader(self) -> ReplyReader:
        if self._reader is None:  # not before the prompt was read: only then it is known how much of it was cached
            self._reader = ReplyReader(
                self._tokenizer,
                self._params.stop_ids,
                self._tools,
                thinking=self._options.thinking,
                prompt_tokens=self.stats.prompt_tokens,
                cached_tokens=self.stats.cached_tokens,
            )
        return self._reader

    def _show(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, TextDelta) and event.kind == "content":
                text = self._stop_text.feed(event.text)
                self._events.extend([TextDelta("content", text)] if text else [])
            elif not self._stop_text.is_hit:
                self._events.append(event)

    def _notice(self) -> None:
        notices = {_LOOP_NOTICES[self._control.loop]} if self._control.loop else set()
        if self.is_thinking and self.think_tokens >= LONG_THINKING_TOKENS:
            notices.add(f"thinking for {LONG_THINKING_TOKENS:,} tokens; a thinking budget bounds it")
        self._events.extend(Notice(text) for text in notices - self._noticed)
        self._noticed |= notices

    def _finish(self, reason: FinishReason) -> None:
        *events, finished = self._reply_reader().finish(reason)
        self._show(events)
        rest = self._stop_text.finish()
        self._events.extend([TextDelta("content", rest)] if rest else [])
        if self._stop_text.is_hit:
            finished = replace(finished, message=self._cut(finished.message), finish_reason="stop")
        if self.stats.generated_tokens:
            self._conversation.answered(self._prompt, finished.message)
        self._finished = finished
        self._events.append(finished)

    def _cut(self, message: Message) -> Message:
        """Take what a stop text cut off out of the message; its ids then no longer spell it."""
        text = self._stop_text.text
        return replace(message, parts=(TextPart(text),) if text else (), tool_calls=(), generated=None)


class StopText:
    """Passes streamed text on until one of `stops` comes; `text` is all that was passed, `is_hit` tells of the end."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.text = ""
        self.is_hit = False
        self._stops = [stop for stop in stops if stop]
        self._held = ""

    def feed(self, text: str) -> str:
        """Add text; return what is certainly before a stop text. Text after one is dropped."""
        if self.is_hit:
            return ""
        text, self._held = self._held + text, ""
        places = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.is_hit = True
            return self._pass(text[: min(places)])
        keep = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[keep:]
        return self._pass(text[:keep])

    def finish(self) -> str:
        """Return what was held back because a stop text might have begun there."""
        held, self._held = self._held, ""
        return self._pass(held)

    def _pass(self, text: str) -> str:
        self.text += text
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text are the beginning of a stop text."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)

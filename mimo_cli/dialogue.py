"""A dialogue under way: Conversation (messages), Sequence (KV cache) and the answer being written.

    Dialogue.answer -> Answer: prompt -> generate -> ids -> ReplyReader -> stop texts -> events, the last one Finished
                                            ^ ThinkingControl forces the end of reasoning (budget, loop, the user)

The next prompt begins with what the KV cache holds, so a turn reads only what is new.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.events import Event, Finished, FinishReason, Notice, TextDelta, ToolCallEvent
from mimo_cli.chat.loop_guard import LoopGuard
from mimo_cli.chat.messages import Message, TextPart, ToolCall
from mimo_cli.chat.prompt_builder import PromptBuilder
from mimo_cli.chat.reply import ReplyReader
from mimo_cli.chat.thinking import ThinkingControl
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.generate import generate
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.engine.sequence import Sequence as Timeline
from mimo_cli.engine.stats import GenerationStats, OnProgress
from mimo_cli.media.prompt import Prompt

_LOOP_NOTICES = {
    "thinking": "the reasoning repeated itself and was ended",
    "answer": "the answer repeats itself",
}


@dataclass(frozen=True)
class TurnOptions:
    """How one answer is made. `sampling` needs no stop_ids or banned_ids: those of the model are added.

    thinking       let the model reason first; think_budget_tokens ends that after so many tokens (None: no bound)
    loop_guard     end reasoning that repeats itself, and say so of an answer
    stop_texts     the answer ends before any of these
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    thinking: bool = True
    think_budget_tokens: int | None = None
    loop_guard: bool = True
    stop_texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speaker:
    """What it takes to talk with a loaded model: the engine and the text side of its folder."""

    engine: Engine
    tokenizer: Tokenizer
    builder: PromptBuilder
    stop_ids: frozenset[int]
    banned_ids: tuple[int, ...]


class Dialogue:
    """One conversation with one model and the timeline it is cached in."""

    def __init__(
        self, speaker: Speaker, conversation: Conversation | None = None, *, context_tokens: int | None = None
    ) -> None:
        self.speaker = speaker
        self.conversation = conversation or Conversation()
        self.timeline = speaker.engine.start_sequence(context_tokens)

    def answer(self, options: TurnOptions | None = None, on_progress: OnProgress | None = None) -> "Answer":
        """Begin the answer to the messages so far; it is appended to the conversation when it is finished.

        Raises UsageError where the messages cannot be rendered; the answer itself raises what Sequence.prefill raises.
        """
        options = options or TurnOptions()
        prompt = self.conversation.prompt(self.speaker.builder, thinking=options.thinking)
        return Answer(self.speaker, self.conversation, self.timeline, prompt, options, on_progress)


class Answer(Iterator[Event]):
    """Events of one answer, the last one Finished (also in `finished`); `stats` are right at any moment.

    Ctrl-C may fall anywhere: asking for the next event then goes on with the token that was under way, `stop` ends the
    answer with what is there.
    """

    def __init__(
        self,
        speaker: Speaker,
        conversation: Conversation,
        timeline: Timeline,
        prompt: Prompt,
        options: TurnOptions,
        on_progress: OnProgress | None,
    ) -> None:
        self.prompt = prompt
        self.finished: Finished | None = None
        self._speaker = speaker
        self._conversation = conversation
        self._options = options
        guard = LoopGuard() if options.loop_guard else None
        self._thinking = ThinkingControl(speaker.tokenizer, budget_tokens=options.think_budget_tokens, guard=guard)
        sampling = options.sampling
        params = replace(
            sampling,
            stop_ids=speaker.stop_ids | set(sampling.stop_ids),
            banned_ids={*speaker.banned_ids, *sampling.banned_ids},
        )
        self._generation = generate(timeline, prompt, params, on_progress=on_progress, force=self._thinking)
        self._stop_text = StopText(options.stop_texts)
        self._reader: ReplyReader | None = None
        self._events: deque[Event] = deque()
        self._shown_calls: list[ToolCall] = []
        self._told_loop: str | None = None

    @property
    def stats(self) -> GenerationStats:
        """What the answer cost so far."""
        return self._generation.stats

    @property
    def is_thinking(self) -> bool:
        """Tell whether the model is reasoning at this moment."""
        return self._thinking.is_thinking

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the reasoning so far, its closing tag included."""
        return self._reader.reasoning_tokens if self._reader else 0

    def __next__(self) -> Event:
        while not self._events:
            if self.finished:
                raise StopIteration
            self._take_step()
        return self._events.popleft()

    def end_thinking(self) -> None:
        """Let the answer come next, if the model is reasoning or about to."""
        self._thinking.end_thinking()

    def stop(self) -> list[Event]:
        """End the answer now, as the user's wish; returns the last events, Finished among them."""
        if not self.finished:
            self._finish("cancelled")
        events = list(self._events)
        self._events.clear()
        return events

    def _take_step(self) -> None:
        step = next(self._generation)
        self._show(self._reply_reader().push(step.token))
        loop = self._thinking.loop
        if loop and loop != self._told_loop:  # the answer may repeat itself after the reasoning did
            self._told_loop = loop
            self._events.append(Notice(_LOOP_NOTICES[loop]))
        if self._stop_text.is_hit:
            self._finish("stop")
        elif step.finish_reason:
            self._finish(step.finish_reason)

    def _reply_reader(self) -> ReplyReader:
        if self._reader is None:  # not before the prompt was read: only then it is known how much of it was cached
            self._reader = ReplyReader(
                self._speaker.tokenizer,
                self._generation.params.stop_ids,
                self._conversation.tools,
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
                self._shown_calls.extend([event.call] if isinstance(event, ToolCallEvent) else [])

    def _finish(self, reason: FinishReason) -> None:
        events = self._reply_reader().finish(reason)
        finished = events[-1]
        if not isinstance(finished, Finished):
            raise TypeError(f"an answer ended with {finished}")
        self._show(events[:-1])
        rest = self._stop_text.finish()
        self._events.extend([TextDelta("content", rest)] if rest else [])
        if self._stop_text.is_hit:
            why: FinishReason = "tool_calls" if self._shown_calls else "stop"
            finished = replace(finished, message=self._cut(finished.message), finish_reason=why)
        if self.stats.generated_tokens:
            self._conversation.answered(self.prompt, finished.message)
        self.finished = finished
        self._events.append(finished)

    def _cut(self, message: Message) -> Message:
        """Take what a stop text cut off out of the message; its ids then no longer spell it.

        Calls before it stay: whoever asked for the answer has them already and will answer them.
        """
        text, calls = self._stop_text.text, tuple(self._shown_calls)
        return replace(message, parts=(TextPart(text),) if text else (), tool_calls=calls, generated=None)


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

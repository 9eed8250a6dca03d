"""Generated ids to an answer: text as it grows, reasoning apart, tool calls whole, and at the end a Message.

    ids -> characters (tokenizer.stream) -> reasoning | content (ReasoningReader) -> content | calls (ToolCallReader)

Knows nothing of the engine: whoever generates pushes ids in and says at last why it ended.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mimo_cli.chat.events import Event, Finished, FinishReason, Notice, TextDelta, ToolCallEvent, Usage
from mimo_cli.chat.messages import Generated, Message, TextPart, ToolCall
from mimo_cli.chat.reasoning import ReasoningReader
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.chat.tool_calls import ToolCallReader

Tools = Sequence[Mapping[str, Any]]


class OutputReader:
    """Takes generated text apart, in chunks of any size: the whole text at once gives the same end."""

    def __init__(self, tools: Tools | None) -> None:
        self._reasoning = ReasoningReader(has_tools=bool(tools))
        self._calls = ToolCallReader(tools)

    @property
    def is_reasoning(self) -> bool:
        """Tell whether the output so far ends inside reasoning."""
        return self._reasoning.is_reasoning

    def feed(self, text: str) -> list[Event]:
        """Add text; return what is settled by it."""
        return self._route(self._reasoning.feed(text))

    def finish(self, is_stop: bool) -> list[Event]:
        """Settle the rest; is_stop tells that the model ended its turn itself."""
        return [*self._route(self._reasoning.finish()), *self._calls.finish(is_stop)]

    def _route(self, events: Iterable[TextDelta | Notice]) -> list[Event]:
        routed: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta) and event.kind == "content":
                routed += self._calls.feed(event.text)
            else:
                routed.append(event)
        return routed


class ReplyReader:
    """Reads one answer. thinking: whether it was asked for, remembered with the message; stop_ids end the answer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_ids: Collection[int],
        tools: Tools | None = None,
        *,
        thinking: bool = True,
        prompt_tokens: int = 0,
        cached_tokens: int = 0,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._thinking = thinking
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = cached_tokens
        self._stream = tokenizer.stream(skip_special=True)
        self._output = OutputReader(tools)
        self._ids: list[int] = []
        self._stop_id: int | None = None
        self._text: dict[str, list[str]] = {"reasoning": [], "content": []}
        self._calls: list[ToolCall] = []
        self.reasoning_tokens = 0

    @property
    def is_reasoning(self) -> bool:
        """Tell whether the model is thinking at this moment."""
        return self._output.is_reasoning

    @property
    def num_tokens(self) -> int:
        """Tokens pushed so far, the stop token included."""
        return len(self._ids) + (self._stop_id is not None)

    def push(self, token_id: int) -> list[Event]:
        """Take the next generated id; return what is new. The stop id ends the text and is not part of the answer."""
        if token_id in self._stop_ids:
            self._stop_id = token_id
            return []
        self._ids.append(token_id)
        was_reasoning = self.is_reasoning
        events = self._record(self._output.feed(self._stream.push(token_id)))
        # The closing tag is the last token of the reasoning.
        self.reasoning_tokens += was_reasoning or self.is_reasoning
        return events

    def finish(self, reason: FinishReason | None = None) -> list[Event]:
        """End the answer; the last event is Finished.

        reason: why generation ended; by default `stop` after a stop id and `length` without one.
        """
        reason = reason or ("length" if self._stop_id is None else "stop")
        is_unclosed = self.is_reasoning
        events = self._record(self._output.feed(self._stream.finish()))
        events += self._record(self._output.finish(is_stop=reason == "stop"))
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        usage = Usage(self._prompt_tokens, self.num_tokens, self.reasoning_tokens, self._cached_tokens)
        return [*events, Finished(self._message(is_unclosed and not self._calls), reason, usage)]

    def _record(self, events: list[Event]) -> list[Event]:
        for event in events:
            if isinstance(event, TextDelta):
                self._text[event.kind].append(event.text)
            elif isinstance(event, ToolCallEvent):
                self._calls.append(event.call)
        return events

    def _message(self, is_unclosed: bool) -> Message:
        """Build the message. Reasoning that was cut off gets its end tag, as the template would write it."""
        think_end = self._tokenizer.added_tokens.get("</think>")
        closing = (think_end,) if is_unclosed and think_end is not None else ()
        content = "".join(self._text["content"])
        return Message(
            "assistant",
            (TextPart(content),) if content else (),
            reasoning="".join(self._text["reasoning"]),
            tool_calls=tuple(self._calls),
            generated=Generated((*self._ids, *closing), self._thinking),
        )


def read_reply(
    ids: Iterable[int], reader: ReplyReader, finish_reason: Callable[[], FinishReason | None] = lambda: None
) -> Iterator[Event]:
    """Yield the events of an answer while its ids come in; finish_reason is asked once they have ended."""
    for token_id in ids:
        yield from reader.push(token_id)
    yield from reader.finish(finish_reason())

"""Conversation: the messages of a dialogue, and prompts that leave earlier turns' ids as they are.

    timeline:  | prompt of turn 1 | answer 1 | end, question 2, header | answer 2 | ...
    marks:                                   ^ 2 messages                         ^ 4 messages

An answer keeps the very ids it was generated as, so the next prompt begins with everything the KV cache holds. Undo and
regenerate go back to a mark; whatever changes the beginning (system text, tools) starts the timeline anew.
Source: chat specification, section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimo_cli.chat.messages import Message
from mimo_cli.chat.prompt_builder import PromptBuilder
from mimo_cli.media.prompt import Prompt


@dataclass(frozen=True)
class _Mark:
    """The first `messages` messages, the last an answer without its end, are the first `length` ids of the timeline."""

    messages: int
    length: int


class Conversation:
    """A dialogue with one model. Messages are only appended, or taken back from the end."""

    def __init__(self, messages: Sequence[Message] = (), tools: Sequence[Mapping[str, Any]] | None = None) -> None:
        self._messages: list[Message] = list(messages)
        self._tools = list(tools) if tools else None
        self._timeline = Prompt(())
        self._marks: list[_Mark] = []
        self._builder: PromptBuilder | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, the system message first if there is one."""
        return tuple(self._messages)

    @property
    def tools(self) -> list[Mapping[str, Any]] | None:
        """The declared tools."""
        return self._tools

    @property
    def system(self) -> str | None:
        """The system text, None for the template's default."""
        return self._messages[0].text if self._messages and self._messages[0].role == "system" else None

    def set_system(self, text: str | None) -> None:
        """Change the system text; None brings the template's default back. Everything is read again after this."""
        if self.system is not None:
            del self._messages[0]
        if text is not None:
            self._messages.insert(0, Message.of("system", text))
        self._forget_from(0)

    def set_tools(self, tools: Sequence[Mapping[str, Any]] | None) -> None:
        """Declare other tools. Everything is read again after this."""
        self._tools = list(tools) if tools else None
        self._forget_from(0)

    def add(self, *messages: Message) -> None:
        """Append messages that the model did not write just now: questions, tool results."""
        self._messages.extend(messages)

    def prompt(self, builder: PromptBuilder, *, thinking: bool = True) -> Prompt:
        """Return the prompt for the next answer. Raises UsageError like the builder."""
        self._replay(builder)
        return self._next_prompt(builder, len(self._messages), thinking)

    def num_tokens(self, builder: PromptBuilder) -> int:
        """Return how many tokens the messages up to the last answer take, 0 where there is none with known ids."""
        self._replay(builder)
        return self._marks[-1].length if self._marks else 0

    def answered(self, prompt: Prompt, message: Message) -> None:
        """Append the answer to `prompt`; its ids, if it has some, are kept as they are."""
        self._messages.append(message)
        self._remember(prompt, message, len(self._messages))

    def undo(self) -> Message | None:
        """Take the last question back with all that followed it; return it, None if there is none."""
        last = self._last("user")
        if last is None:
            return None
        question = self._messages[last]
        self._cut(last)
        return question

    def retract_answer(self) -> Message | None:
        """Take the last answer back, to generate another one; return it, None if the last message is no answer."""
        if not self._messages or self._messages[-1].role != "assistant":
            return None
        answer = self._messages[-1]
        self._cut(len(self._messages) - 1)
        return answer

    def clear(self) -> None:
        """Take everything back but the system text."""
        self._cut(0 if self.system is None else 1)

    def _last(self, role: str) -> int | None:
        return next((i for i in range(len(self._messages) - 1, -1, -1) if self._messages[i].role == role), None)

    def _cut(self, count: int) -> None:
        del self._messages[count:]
        self._forget_from(count)

    def _forget_from(self, count: int) -> None:
        """Drop the marks of answers that are no longer among the first `count` messages."""
        self._marks = [mark for mark in self._marks if mark.messages <= count]
        self._timeline = self._timeline.head(self._marks[-1].length if self._marks else 0)

    def _next_prompt(self, builder: PromptBuilder, count: int, thinking: bool) -> Prompt:
        messages = self._messages[:count]
        if self._marks and builder.is_append_only:
            mark = self._marks[-1]
            base = self._timeline.head(mark.length)
            prompt = builder.extend(base, messages, mark.messages, self._tools, thinking=thinking)
            if prompt is not None:
                return prompt
        return builder.build(messages, self._tools, thinking=thinking)

    def _replay(self, builder: PromptBuilder) -> None:
        """Lay out answers whose ids are known but not in the timeline yet: those of a loaded conversation."""
        if builder is not self._builder:
            self._forget_from(0)
            self._builder = builder
        done = self._marks[-1].messages if self._marks else 0
        for i in range(done, len(self._messages)):
            generated = self._messages[i].generated
            if i and generated is not None and builder.is_append_only:
                self._remember(self._next_prompt(builder, i, generated.thinking), self._messages[i], i + 1)

    def _remember(self, prompt: Prompt, message: Message, count: int) -> None:
        if message.generated is None:
            return
        if prompt.ids[: len(self._timeline)] != self._timeline.ids:
            self._marks = []
        self._timeline = prompt.followed_by(message.generated.ids)
        self._marks.append(_Mark(count, len(self._timeline)))

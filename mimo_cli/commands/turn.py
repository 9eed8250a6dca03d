"""Shows one answer while it is written: the answer on stdout, reasoning and progress on stderr."""

import json
from dataclasses import dataclass
from typing import Any

from mimo_cli.chat.events import Event, Finished, FinishReason, Notice, TextDelta
from mimo_cli.chat.messages import Message, ToolCall
from mimo_cli.commands.interrupts import TurnInterrupt
from mimo_cli.commands.numbers import numbers_line
from mimo_cli.commands.repeats import is_looping
from mimo_cli.dialogue import Answer
from mimo_cli.engine.stats import GenerationStats, Progress
from mimo_cli.errors import MimoError
from mimo_cli.terminal.console import DIM, AnswerWriter, Terminal
from mimo_cli.terminal.progress import Stage
from mimo_cli.units import format_count

LONG_THINKING_TOKENS = 8192
LOOP_PATIENCE_TOKENS = 600
"""So many tokens an answer may go on after a loop was noticed, for it might be a table; then it is looked at again."""


@dataclass(frozen=True)
class TurnStyle:
    """What is shown: the answer as it streams, its reasoning, and the numbers line after it."""

    shows_answer: bool = True
    shows_thinking: bool = False
    shows_numbers: bool = False


@dataclass(frozen=True)
class TurnResult:
    """An answer that is over: its message, why it ended, what was said about it, what it cost.

    finish_reason is `length` also where it was stopped for repeating itself; `notes` then say so.
    """

    message: Message
    finish_reason: FinishReason
    notes: tuple[str, ...]
    stats: GenerationStats
    reasoning_tokens: int
    is_looping: bool = False


class PromptProgress:
    """Shows how far media and prompt are; hand it to Dialogue.answer as `on_progress`."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._stage: Stage | None = None
        self._label = ""

    def __call__(self, progress: Progress) -> None:
        label = f"encoding {progress.source}" if progress.stage == "encode" else "reading"
        if self._stage is None or label != self._label:
            self.finish()
            self._stage, self._label = Stage(self._terminal, label, "tok"), label
        self._stage.update(progress.done_tokens, progress.total_tokens)

    def finish(self) -> None:
        """End the stage under way."""
        if self._stage:
            self._stage.finish()
        self._stage = None


def show_turn(answer: Answer, terminal: Terminal, style: TurnStyle, progress: PromptProgress) -> TurnResult:
    """Run an answer to its end and show it; Ctrl-C acts on the answer meanwhile.

    Raises KeyboardInterrupt for a Ctrl-C before the first token, Left for one that means to leave, BrokenPipeError
    where nobody reads stdout, and what the engine raises.
    """
    interrupt = TurnInterrupt(answer)
    with interrupt.installed(), terminal.answer() as writer:
        view = _TurnView(answer, terminal, style, writer)
        for event in answer:
            progress.finish()
            view.show(event)
            if interrupt.wants_stop or view.is_hopeless():
                for last in answer.stop():
                    view.show(last)
        view.end_thinking()
    progress.finish()
    terminal.end_thinking()
    result = _result(answer, tuple(view.notes), view.gave_up)
    if style.shows_numbers:
        terminal.note(numbers_line(answer.stats, answer.reasoning_tokens))
    return result


def cut_short(answer: Answer) -> TurnResult:
    """End an answer while its run is being stopped from outside; return what there is of it."""
    answer.stop()
    return _result(answer)


def _result(answer: Answer, notes: tuple[str, ...] = (), gave_up: bool = False) -> TurnResult:
    if answer.finished is None:
        raise MimoError("the answer ended without an end", hint="the same command with --debug")
    reason = "length" if gave_up else answer.finished.finish_reason
    return TurnResult(answer.finished.message, reason, notes, answer.stats, answer.reasoning_tokens, gave_up)


def ending_note(result: TurnResult, max_tokens: int | None) -> str | None:
    """Say why an answer is not whole; None for one that is."""
    count = format_count(result.stats.generated_tokens)
    if result.finish_reason == "length" and not result.is_looping:
        return f"the answer was cut after {count} tokens by --max-tokens {max_tokens}"
    if result.finish_reason == "context":
        limit = format_count(result.stats.context_limit)
        return f"the answer was cut after {count} tokens: the context of {limit} tokens is full; --ctx enlarges it"
    return None


def call_value(call: ToolCall) -> dict[str, Any]:
    """Return a tool call as a JSON object."""
    return {"name": call.name, "arguments": dict(call.arguments)}


def call_line(call: ToolCall) -> str:
    """Return a tool call as the line that stands for it beside an answer's text."""
    return json.dumps({"tool_call": call_value(call)}, ensure_ascii=False)


class _TurnView:
    def __init__(self, answer: Answer, terminal: Terminal, style: TurnStyle, writer: AnswerWriter) -> None:
        self.notes: list[str] = []
        self.gave_up = False
        self._answer = answer
        self._terminal = terminal
        self._style = style
        self._writer = writer
        self._hidden_thinking: Stage | None = None
        self._has_shown_thinking = False
        self._has_warned_of_length = False
        self._content: list[str] = []
        self._next_look: int | None = None

    def show(self, event: Event) -> None:
        """Show one event in its place."""
        if isinstance(event, Notice):
            self._show_notice(event.text)
        elif isinstance(event, TextDelta) and event.kind == "reasoning":
            self._show_thinking(event.text)
        elif isinstance(event, TextDelta):
            self.end_thinking()
            self._content.append(event.text)
            if self._style.shows_answer:
                self._writer.write(event.text)
        elif not isinstance(event, Finished):
            self.end_thinking()
            if self._style.shows_answer:
                self._writer.write(("\n" if self._writer.started else "") + call_line(event.call))

    def is_hopeless(self) -> bool:
        """Tell whether the answer kept repeating itself long after that was noticed (and say so)."""
        if self._next_look is None or self._answer.stats.generated_tokens < self._next_look:
            return False
        self._next_look += LOOP_PATIENCE_TOKENS
        if not is_looping("".join(self._content)):
            return False
        self._show_notice("the answer went on repeating itself and was stopped; --no-loop-guard lets it run")
        self.gave_up = True
        return True

    def end_thinking(self) -> None:
        """Close what is shown of the reasoning."""
        if self._has_shown_thinking:
            self._terminal.end_thinking()
        if self._hidden_thinking:
            self._hidden_thinking.finish()
        self._hidden_thinking = None

    def _show_notice(self, text: str) -> None:
        self.notes.append(text)
        self._terminal.warn(text)
        if self._content and self._next_look is None:
            self._next_look = self._answer.stats.generated_tokens + LOOP_PATIENCE_TOKENS

    def _show_thinking(self, text: str) -> None:
        if self._style.shows_thinking:
            text = text if self._has_shown_thinking else text.lstrip("\r\n")
            self._has_shown_thinking = self._has_shown_thinking or bool(text)
            self._terminal.write_error_stream(text, DIM)
        else:
            self._hidden_thinking = self._hidden_thinking or Stage(self._terminal, "thinking", "tok")
            self._hidden_thinking.update(self._answer.reasoning_tokens)
        if self._answer.reasoning_tokens >= LONG_THINKING_TOKENS and not self._has_warned_of_length:
            self._has_warned_of_length = True
            self._show_notice(f"thinking for {LONG_THINKING_TOKENS:,} tokens; Ctrl-C or --think-budget ends it")

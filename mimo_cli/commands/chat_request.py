"""What one `mimo chat` was asked for: its own options, and the whole request as a value. Loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mimo_cli.chat.named_files import user_path
from mimo_cli.commands.model_choice import ModelChoice
from mimo_cli.commands.options import (
    MediaReadingOptions,
    ModelOptions,
    SamplingOptions,
    ShowThinking,
    ThinkingOptions,
    read_duration,
)
from mimo_cli.commands.sources import STDIN, Question
from mimo_cli.terminal.console import Terminal


@dataclass(frozen=True)
class ChatOptions:
    """What only `chat` has."""

    system: Annotated[str | None, typer.Option("-s", "--system", metavar="TEXT", help="System text, or @FILE.")] = None
    tools: Annotated[
        str | None, typer.Option("--tools", metavar="FILE", help="JSON list of tools; calls are shown.", hidden=True)
    ] = None
    raw_special_tokens: Annotated[
        bool,
        typer.Option("--raw-special-tokens", help="Let text such as <|im_end|> become control tokens.", hidden=True),
    ] = False
    as_json: Annotated[bool, typer.Option("-j", "--json", help="Answer, reasoning and numbers as JSON.")] = False
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it there; - is stdout.", hidden=True),
    ] = None
    usage: Annotated[bool, typer.Option("--usage", help="Numbers line also off a terminal.", hidden=True)] = False
    fail_on_length: Annotated[
        bool, typer.Option("--fail-on-length", help="Exit 6 where the answer was cut.", hidden=True)
    ] = False
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="TIME", parser=read_duration, help="Stop after it, exit 6.", hidden=True),
    ] = None
    save: Annotated[bool, typer.Option("--save/--no-save", help="Save dialogues [on].", hidden=True)] = True
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID", help="Go on with a saved dialogue.", hidden=True)
    ] = None
    go_on: Annotated[
        bool, typer.Option("-C", "--continue", help="Go on with the last saved dialogue.", hidden=True)
    ] = False
    history: Annotated[bool, typer.Option("--history/--no-history", help="Remember input lines [on].", hidden=True)] = (
        True
    )

    @property
    def output_path(self) -> Path | None:
        """The file that takes the answer, None for stdout."""
        return None if self.output is None or self.output == STDIN else user_path(self.output)


@dataclass(frozen=True)
class ChatRequest:
    """The whole command line of one `mimo chat`, checked as far as it can be without the model.

    `resumed` is the file of the saved dialogue that goes on, None for a new one.
    """

    choice: ModelChoice
    question: Question
    system: str | None
    tools: list[dict[str, Any]] | None
    model: ModelOptions
    media: MediaReadingOptions
    sampling: SamplingOptions
    thinking: ThinkingOptions
    chat: ChatOptions
    resumed: Path | None = None

    def shows_thinking(self, terminal: Terminal) -> bool:
        """Tell whether reasoning is shown: on request, else where both the answer and stderr go to a terminal."""
        wish = self.thinking.show_thinking
        return wish == ShowThinking.yes or (
            wish == ShowThinking.auto and terminal.err_is_terminal and terminal.out_is_terminal and not terminal.quiet
        )

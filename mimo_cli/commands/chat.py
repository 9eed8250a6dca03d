"""`mimo chat`: the command line to a request; answered once here, or talked about in the dialogue.

words, stdin, files, media -> Question -> Message -> Conversation -> Dialogue -> turn.show_turn -> stdout
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimo_cli.commands.command import FLAG_ORDER
from mimo_cli.commands.interrupts import time_limit
from mimo_cli.commands.model_choice import CONFIG_FILE, ModelChoice, choose_model
from mimo_cli.commands.options import (
    AttachmentOptions,
    GeneralOptions,
    MediaReadingOptions,
    ModelOptions,
    SamplingOptions,
    ShowThinking,
    ThinkingOptions,
    read_duration,
)
from mimo_cli.commands.sources import (
    Attachment,
    Kind,
    Question,
    Stdin,
    build_question,
    read_option_text,
    read_text_file,
    write_atomically,
)
from mimo_cli.errors import UsageError
from mimo_cli.terminal.console import Terminal, is_terminal

if TYPE_CHECKING:
    from mimo_cli.chat.attachments import MediaOpener
    from mimo_cli.chat.messages import Message
    from mimo_cli.commands.loading import LoadedModel
    from mimo_cli.commands.turn import TurnResult
    from mimo_cli.dialogue import TurnOptions

EXAMPLES = (
    'mimo chat --image cat.jpg "What is in this picture?"',
    'git diff | mimo chat "review this" > review.md',
    "mimo chat            (a dialogue; /help lists its commands)",
)
LIMIT_REACHED, INTERRUPTED = 6, 130

_ATTACHING: dict[str, Kind] = {"image": "image", "video": "video", "audio": "audio", "attach": "any"}


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
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write the answer there.", hidden=True)
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


@dataclass(frozen=True)
class ChatRequest:
    """The whole command line of one `mimo chat`, checked as far as it can be without the model."""

    choice: ModelChoice
    question: Question
    system: str | None
    tools: list[dict[str, Any]] | None
    model: ModelOptions
    media: MediaReadingOptions
    sampling: SamplingOptions
    thinking: ThinkingOptions
    chat: ChatOptions

    @property
    def is_resumed(self) -> bool:
        """Tell whether a saved dialogue is to be opened."""
        return self.chat.go_on or self.chat.resume is not None


def chat(
    call: typer.Context,
    attachments: AttachmentOptions,
    chat: ChatOptions,
    thinking: ThinkingOptions,
    sampling: SamplingOptions,
    model: ModelOptions,
    media: MediaReadingOptions,
    general: GeneralOptions,
    prompt: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="The question.")] = None,
) -> int:
    """Talk with the model: text, pictures, video and sound in, text out.

    With a prompt or piped input it answers once and exits; the answer alone goes to stdout. On a terminal without a
    prompt it opens a dialogue. Input from a pipe comes before the prompt, text files before both; media come first,
    in the order in which they are given. `-` stands for stdin.

    Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 model files missing or damaged, 4 not enough memory,
    6 stopped by --timeout or --fail-on-length, 130 Ctrl-C.
    """
    terminal = general.terminal()
    order = call.meta.get(FLAG_ORDER, [])
    question = build_question(
        prompt or [],
        attachments.file or [],
        attachments_in_order(attachments, order),
        Stdin(terminal),
        with_names=attachments.names,
    )
    request = ChatRequest(
        choose_model(model.model),
        question,
        None if chat.system is None else read_option_text(chat.system),
        None if chat.tools is None else read_tools(chat.tools),
        model,
        media,
        sampling,
        thinking,
        chat,
    )
    with time_limit(chat.timeout):
        if not prompt and _is_interactive(terminal):
            from mimo_cli.commands.talk import talk

            return talk(request, terminal)
        if question.is_empty:
            raise UsageError(
                "there is no question: neither words, nor text on stdin, nor media", hint='mimo chat "QUESTION"'
            )
        return _answer_once(request, terminal)


def attachments_in_order(options: AttachmentOptions, order: Sequence[str]) -> list[Attachment]:
    """Return the media as they stand on the command line; those of variables and settings files come after."""
    left = {name: list(getattr(options, name) or []) for name in _ATTACHING}
    named = [name for name in order if left.get(name)]
    named = [name for i, name in enumerate(named) if named[: i + 1].count(name) <= len(left[name])]
    rest = [name for name in _ATTACHING for _ in range(len(left[name]) - named.count(name))]
    return [Attachment(_ATTACHING[name], left[name].pop(0)) for name in [*named, *rest]]


def read_tools(path: str) -> list[dict[str, Any]]:
    """Read a JSON list of tools (or an object with one under `tools`). Raises UsageError naming the file."""
    try:
        value = json.loads(read_text_file(path))
    except ValueError as err:
        raise UsageError(f"`{path}` is not JSON: {err}") from err
    value = value.get("tools") if isinstance(value, dict) and "tools" in value else value
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise UsageError(f"`{path}` holds no list of tools", hint='write [{"name": ..., "parameters": {...}}]')
    return value


def turn_options(request: ChatRequest) -> "TurnOptions":
    """Return how answers are made; the model's own recommendations where nothing was said."""
    from mimo_cli.dialogue import TurnOptions
    from mimo_cli.engine.sampling import SamplingParams

    given = request.sampling
    params = SamplingParams(seed=given.seed, max_tokens=given.max_tokens)
    chosen: dict[str, Any] = {
        "temperature": given.temp,
        "top_p": given.top_p,
        "top_k": given.top_k,
        "min_p": given.min_p,
        "repetition_penalty": given.rep_penalty,
    }
    params = replace(params, **{name: value for name, value in chosen.items() if value is not None})
    thinking = request.thinking
    return TurnOptions(params, thinking.think, thinking.think_budget, thinking.loop_guard, tuple(given.stop or ()))


def user_message(question: Question, opener: "MediaOpener") -> "Message":
    """Open the attachments and return the message: media first, then the text."""
    from mimo_cli.chat.messages import Message

    media = [opener.open(item.source, None if item.kind == "any" else item.kind) for item in question.attachments]
    return Message.of("user", *media, *([question.text] if question.text else []))


def shows_thinking(request: ChatRequest, terminal: Terminal) -> bool:
    """Tell whether reasoning is shown: on request, else where both the answer and stderr go to a terminal."""
    wish = request.thinking.show_thinking
    return wish == ShowThinking.yes or (
        wish == ShowThinking.auto and terminal.err_is_terminal and terminal.out_is_terminal and not terminal.quiet
    )


@contextmanager
def loaded_for_chat(request: ChatRequest, terminal: Terminal) -> Iterator["LoadedModel"]:
    """Load the model of a request for the block."""
    from mimo_cli.commands.loading import limit_threads, load_model, warn_about_template

    limit_threads(request.model)
    raw = request.chat.raw_special_tokens
    with load_model(request.choice, request.model, terminal, request.media, raw) as loaded:
        warn_about_template(terminal, loaded)
        yield loaded


def _is_interactive(terminal: Terminal) -> bool:
    return is_terminal(sys.stdin) and (terminal.err_is_terminal or terminal.out_is_terminal)


def _answer_once(request: ChatRequest, terminal: Terminal) -> int:
    from mimo_cli.chat.conversation import Conversation
    from mimo_cli.chat.messages import Message
    from mimo_cli.checkpoint.config import ModelConfig
    from mimo_cli.commands.loading import announce, media_opener
    from mimo_cli.commands.turn import PromptProgress, TurnStyle, ending_note, show_turn
    from mimo_cli.dialogue import Dialogue

    # Media are opened before the model is loaded: a wrong path must not cost minutes.
    config = ModelConfig.from_file(request.choice.folder / CONFIG_FILE)
    message = user_message(request.question, media_opener(config, request.choice, request.media))
    system = [] if request.system is None else [Message.of("system", request.system)]
    chat = request.chat
    with loaded_for_chat(request, terminal) as loaded:
        conversation = Conversation([*system, message], request.tools)
        dialogue = Dialogue(loaded.engine.speaker, conversation, context_tokens=request.model.ctx)
        announce(terminal, loaded, dialogue.timeline.max_tokens, in_full=not chat.as_json)
        style = TurnStyle(
            shows_answer=not chat.as_json and chat.output is None,
            shows_thinking=shows_thinking(request, terminal),
            shows_numbers=chat.usage or (terminal.err_is_terminal and not chat.as_json),
        )
        progress = PromptProgress(terminal)
        result = show_turn(dialogue.answer(turn_options(request), progress), terminal, style, progress)
        terminal.detail(f"seed {result.stats.seed}")
        note = ending_note(result, request.sampling.max_tokens)
        if note:
            terminal.warn(note)
        notes = [*loaded.engine.notes, *result.notes, *([note] if note else [])]
        _deliver(chat, terminal, result, json_answer(loaded, result, notes))
    if result.finish_reason == "cancelled":
        return INTERRUPTED
    is_cut = result.finish_reason in ("length", "context")
    return LIMIT_REACHED if is_cut and chat.fail_on_length else 0


def _deliver(chat: ChatOptions, terminal: Terminal, result: "TurnResult", document: dict[str, Any]) -> None:
    """Write what did not stream to stdout: JSON, or the text to a file."""
    text = json.dumps(document, ensure_ascii=False) if chat.as_json else result.message.text.strip("\r\n")
    if chat.output is not None:
        write_atomically(Path(chat.output).expanduser(), text + "\n")
    elif chat.as_json:
        terminal.write(text + "\n")


def json_answer(loaded: "LoadedModel", result: "TurnResult", notes: Sequence[str]) -> dict[str, Any]:
    """Return an answer with all its numbers as one JSON object."""
    from mimo_cli.commands.numbers import memory_fields, timing_fields, usage_fields
    from mimo_cli.commands.turn import call_value

    message, stats = result.message, result.stats
    return {
        "schema": 1,
        "content": message.text,
        "reasoning": message.reasoning or None,
        "tool_calls": [call_value(call) for call in message.tool_calls],
        "finish_reason": result.finish_reason,
        "usage": usage_fields(stats, result.reasoning_tokens),
        "timings": timing_fields(stats, loaded.load_s),
        "memory": memory_fields(stats),
        "seed": stats.seed,
        "model": {
            "name": loaded.choice.name,
            "folder": str(loaded.choice.folder),
            "dtype": loaded.dtype_name,
            "is_miniature": loaded.choice.notice is not None,
        },
        "lossy": [],
        "notes": list(notes),
    }

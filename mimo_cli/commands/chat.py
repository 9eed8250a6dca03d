"""`mimo chat`: the command line to a request; answered once here, or talked about in the dialogue.

words, stdin, files, media -> Question -> Message -> Conversation -> Dialogue -> turn.show_turn -> stdout
"""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mimo_cli.commands.chat_request import ChatOptions, ChatRequest
from mimo_cli.commands.command import FLAG_ORDER
from mimo_cli.commands.early_start import early_start
from mimo_cli.commands.interrupts import time_limit
from mimo_cli.commands.model_choice import choose_model
from mimo_cli.commands.options import (
    AttachmentOptions,
    GeneralOptions,
    MediaReadingOptions,
    ModelOptions,
    SamplingOptions,
    ThinkingOptions,
)
from mimo_cli.commands.output_file import require_writable
from mimo_cli.commands.saved_chats import find_chat
from mimo_cli.commands.sources import (
    Attachment,
    Kind,
    Stdin,
    build_question,
    read_option_text,
    read_text_file,
)
from mimo_cli.errors import UsageError
from mimo_cli.terminal.console import Terminal, is_terminal

EXAMPLES = (
    'mimo chat --image cat.jpg "What is in this picture?"',
    'git diff | mimo chat "review this" > review.md',
    "mimo chat            (a dialogue; /help lists its commands)",
)

_ATTACHING: dict[str, Kind] = {"image": "image", "video": "video", "audio": "audio", "attach": "any"}


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
    in the order in which they are given. `-` stands for stdin. With --resume or --continue the question is asked in the
    saved dialogue, and saved there with its answer unless --no-save.

    Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 model files missing or damaged, 4 not enough memory,
    6 stopped by --timeout or --fail-on-length, 130 Ctrl-C.
    """
    terminal = general.terminal()
    model.limit_threads()
    if chat.output_path is not None:
        require_writable(chat.output_path)
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
        # Before anything is loaded: a mistyped name must not cost minutes.
        find_chat(chat.resume) if chat.go_on or chat.resume is not None else None,
    )
    with time_limit(chat.timeout), early_start(request.choice.folder):
        if not prompt and _is_interactive(terminal):
            from mimo_cli.commands.talk import talk

            return talk(request, terminal)
        if question.is_empty:
            raise UsageError(
                "there is no question: neither words, nor text on stdin, nor media", hint='mimo chat "QUESTION"'
            )
        from mimo_cli.commands.answer_once import answer_once

        return answer_once(request, terminal)


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


def _is_interactive(terminal: Terminal) -> bool:
    return is_terminal(sys.stdin) and (terminal.err_is_terminal or terminal.out_is_terminal)

"""One question, one answer: to stdout as it streams, to a file, or as JSON with all its numbers."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mimo_cli.chat.attachments import MediaOpener
from mimo_cli.chat.chat_file import load_conversation, save_conversation
from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.messages import Message
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.commands.chat_request import ChatOptions, ChatRequest
from mimo_cli.commands.interrupts import Stopped, TimeLimitReached, ctrl_c_waits
from mimo_cli.commands.loading import (
    LoadedModel,
    announce,
    load_model,
    media_opener,
    placement_fields,
    warn_about_template,
)
from mimo_cli.commands.model_choice import CONFIG_FILE
from mimo_cli.commands.numbers import memory_fields, timing_fields, usage_fields
from mimo_cli.commands.output_file import write_atomically
from mimo_cli.commands.sources import Question
from mimo_cli.commands.turn import (
    PromptProgress,
    TurnResult,
    TurnStyle,
    call_line,
    call_value,
    cut_short,
    ending_note,
    show_turn,
)
from mimo_cli.dialogue import Dialogue, TurnOptions
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.errors import MimoError
from mimo_cli.miniature.bundled import usual_temperature
from mimo_cli.terminal.console import Terminal

LIMIT_REACHED, INTERRUPTED = 6, 130


def answer_once(request: ChatRequest, terminal: Terminal) -> int:
    """Answer the question of a request; returns the exit code.

    Raises Stopped for an end from outside, after what was written by then is kept: in its file or on stdout where it
    was the time limit, and in the saved dialogue.
    """
    # Media are opened before the model is loaded: a wrong path must not cost minutes.
    config = ModelConfig.from_file(request.choice.folder / CONFIG_FILE)
    message = user_message(request.question, media_opener(config, request.choice, request.media))
    chat = request.chat
    for note in media_notes(message):
        terminal.warn(note)
    with loaded_for_chat(request, terminal) as loaded:
        conversation = first_conversation(request, loaded, terminal)
        conversation.add(message)
        dialogue = Dialogue(loaded.engine.speaker, conversation, context_tokens=request.model.ctx)
        announce(terminal, loaded, dialogue.timeline.max_tokens, in_full=not chat.as_json)
        style = TurnStyle(
            shows_answer=not chat.as_json and chat.output_path is None,
            shows_thinking=request.shows_thinking(terminal),
            shows_numbers=chat.usage or (terminal.err_is_terminal and not chat.as_json),
        )
        progress = PromptProgress(terminal)
        answer = dialogue.answer(turn_options(request), progress)
        stop: Stopped | None = None
        try:
            result = show_turn(answer, terminal, style, progress)
        except Stopped as err:
            progress.finish()
            if not answer.stats.generated_tokens:
                raise
            result, stop = cut_short(answer), err
        terminal.detail(f"seed {result.stats.seed}")
        cut = ending_note(result, request.sampling.max_tokens)
        if cut:
            terminal.warn(cut)
        is_late = isinstance(stop, TimeLimitReached)
        notes = [*loaded.engine.notes, *media_notes(message), *result.notes, *([cut] if cut else [])]
        notes += ["the answer was stopped by --timeout"] if is_late else []
        try:
            if stop is None or is_late:
                _deliver(chat, terminal, result, json_answer(loaded, result, notes))
        finally:
            _save(request, conversation, loaded)
        if stop is not None:
            raise stop
    if result.finish_reason == "cancelled":
        return INTERRUPTED
    is_cut = result.finish_reason in ("length", "context")
    return LIMIT_REACHED if is_cut and chat.fail_on_length else 0


def first_conversation(request: ChatRequest, loaded: LoadedModel, terminal: Terminal) -> Conversation:
    """Return the conversation that a request begins with: the saved one it goes on with, or an empty one.

    The request's own system text and tools win over saved ones. Raises what load_conversation raises.
    """
    if request.resumed is None:
        system = [] if request.system is None else [Message.of("system", request.system)]
        return Conversation(system, request.tools)
    conversation = load_conversation(request.resumed, loaded.engine.media_opener.open, loaded.engine.tokenizer)
    set_given(request, conversation)
    turns = sum(message.role == "user" for message in conversation.messages)
    terminal.note(f"mimo: {turns} question{'' if turns == 1 else 's'} from {request.resumed}")
    return conversation


def set_given(request: ChatRequest, conversation: Conversation) -> None:
    """Let the system text and the tools of a request, where it has some, win over those of a saved dialogue."""
    if request.system is not None:
        conversation.set_system(request.system)
    if request.tools is not None:
        conversation.set_tools(request.tools)


def turn_options(request: ChatRequest) -> TurnOptions:
    """Return how answers are made; the model's own recommendations where nothing was said."""
    given = request.sampling
    params = SamplingParams(seed=given.seed, max_tokens=given.max_tokens)
    chosen: dict[str, Any] = {
        "temperature": usual_temperature(request.choice.folder) if given.temp is None else given.temp,
        "top_p": given.top_p,
        "top_k": given.top_k,
        "min_p": given.min_p,
        "repetition_penalty": given.rep_penalty,
    }
    params = replace(params, **{name: value for name, value in chosen.items() if value is not None})
    thinking = request.thinking
    return TurnOptions(params, thinking.think, thinking.think_budget, thinking.loop_guard, tuple(given.stop or ()))


def user_message(question: Question, opener: MediaOpener) -> Message:
    """Open the attachments and return the message: media first, then the text."""
    media = [opener.open(item.source, None if item.kind == "any" else item.kind) for item in question.attachments]
    return Message.of("user", *media, *([question.text] if question.text else []))


def media_notes(message: Message) -> list[str]:
    """Return what stands out about the media of a message ("it is silent")."""
    return [f"{part.media.source}: {note}" for part in message.media for note in getattr(part.media, "notes", ())]


@contextmanager
def loaded_for_chat(request: ChatRequest, terminal: Terminal) -> Iterator[LoadedModel]:
    """Load the model of a request for the block."""
    raw = request.chat.raw_special_tokens
    with load_model(request.choice, request.model, terminal, request.media, raw) as loaded:
        warn_about_template(terminal, loaded)
        yield loaded


def json_answer(loaded: LoadedModel, result: TurnResult, notes: Sequence[str]) -> dict[str, Any]:
    """Return an answer with all its numbers as one JSON object."""
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
        "placement": placement_fields(loaded.engine.core.budget),
        "seed": stats.seed,
        "model": {
            "name": loaded.choice.name,
            "folder": str(loaded.choice.folder),
            "dtype": loaded.dtype_name,
            "kernels": loaded.engine.core.compute.name,
            "is_miniature": loaded.choice.notice is not None,
        },
        "lossy": list(loaded.engine.core.losses),
        "notes": list(notes),
    }


def _save(request: ChatRequest, conversation: Conversation, loaded: LoadedModel) -> None:
    """Write a saved dialogue back once its new question has an answer. Raises MimoError where that fails."""
    is_answered = conversation.messages[-1].role == "assistant"
    if request.resumed is not None and request.chat.save and is_answered:
        with ctrl_c_waits():
            save_conversation(request.resumed, conversation, loaded.engine.tokenizer)


def _deliver(chat: ChatOptions, terminal: Terminal, result: TurnResult, document: dict[str, Any]) -> None:
    """Write what did not stream to stdout: JSON, or the text to a file.

    Raises MimoError where the file cannot be written; the answer is on stdout then.
    """
    content = json.dumps(document, ensure_ascii=False) if chat.as_json else _lines(result.message)
    if chat.output_path is not None and (content or result.finish_reason != "cancelled"):
        try:
            write_atomically(chat.output_path, content + "\n")
        except MimoError:
            terminal.write(content + "\n")
            raise
    elif chat.as_json:
        terminal.write(content + "\n")


def _lines(message: Message) -> str:
    """Return what a streamed answer shows: its text, then a line for each tool call."""
    text = message.text.strip("\r\n")
    return "\n".join([*([text] if text else []), *map(call_line, message.tool_calls)])

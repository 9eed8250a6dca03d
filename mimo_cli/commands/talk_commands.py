"""What each slash command of the dialogue does. Everything it shows goes to stderr: stdout is for answers."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mimo_cli.chat.named_files import user_path
from mimo_cli.commands.numbers import numbers_line
from mimo_cli.commands.slash import help_lines, paths_of
from mimo_cli.commands.sources import Attachment, Kind, read_option_text
from mimo_cli.commands.talk_settings import change_setting, setting_lines
from mimo_cli.errors import UsageError
from mimo_cli.terminal.console import DIM
from mimo_cli.units import format_bytes, format_count, format_duration, parse_count

if TYPE_CHECKING:
    from mimo_cli.commands.talk import Talk


def run_slash_command(talk: "Talk", name: str, argument: str) -> None:
    """Run a command of `slash.COMMANDS`. Raises UsageError where its argument makes no sense."""
    _HANDLERS[name](talk, argument)


def _attacher(kind: Kind) -> Callable[["Talk", str], None]:
    def attach(talk: "Talk", argument: str) -> None:
        for path in _required_paths(argument, f"/{'attach' if kind == 'any' else kind}"):
            talk.attach(Attachment(kind, path))

    return attach


def _file(talk: "Talk", argument: str) -> None:
    for path in _required_paths(argument, "/file"):
        talk.attach_text(path)


def _system(talk: "Talk", argument: str) -> None:
    if not argument:
        talk.terminal.line(f"  {talk.conversation.system or 'the default of the chat template'}")
        return
    talk.conversation.set_system(None if argument == "default" else read_option_text(argument))
    talk.terminal.note("mimo: the system text is changed; the conversation is read again with the next message")


def _think(talk: "Talk", argument: str) -> None:
    if argument in ("show", "hide"):
        if argument == "show" and not talk.shows_thinking and talk.last_result is not None:
            talk.terminal.line((talk.last_result.message.reasoning or "").strip("\n"), DIM)
        talk.shows_thinking = argument == "show"
    elif argument in ("on", "off"):
        talk.options = replace(talk.options, thinking=argument == "on")
    elif argument:
        talk.options = replace(talk.options, thinking=True, think_budget_tokens=parse_count(argument))
    budget = talk.options.think_budget_tokens
    limit = f", at most {format_count(budget)} tokens" if budget else ""
    shown = "shown" if talk.shows_thinking else "hidden"
    talk.terminal.line(f"  thinking is {'on' if talk.options.thinking else 'off'}{limit}, {shown}")


def _regen(talk: "Talk", argument: str) -> None:
    answer = talk.conversation.retract_answer()
    if answer is None:
        raise UsageError("there is no answer to write again", hint="ask something first")
    if talk.options.sampling.seed is not None or talk.options.sampling.temperature == 0:
        talk.terminal.warn("with a fixed seed or temperature 0 the answer is the same; /set seed none")
    try:
        talk.answer()
    finally:
        if talk.conversation.messages and talk.conversation.messages[-1].role != "assistant":
            talk.conversation.add(answer)  # interrupted before the first token, or refused: the old answer stands


def _undo(talk: "Talk", argument: str) -> None:
    question = talk.conversation.undo()
    if question is None:
        raise UsageError("there is nothing to take back")
    text = " ".join(question.text.split())
    talk.terminal.note(f"mimo: taken back: {text[:60]}{'...' if len(text) > 60 else ''}")


def _save(talk: "Talk", argument: str) -> None:
    path = user_path(_required(argument, "/save FILE"))
    talk.save_as(path)
    talk.terminal.note(f"mimo: saved to {path}")


def _load(talk: "Talk", argument: str) -> None:
    talk.load(user_path(_required(argument, "/load FILE")))


def _stats(talk: "Talk", argument: str) -> None:
    result = talk.last_result
    if result is None:
        raise UsageError("there is no answer yet")
    stats = result.stats
    for line in (
        numbers_line(stats, result.reasoning_tokens),
        f"KV cache {format_bytes(stats.kv_bytes)}, peak memory {format_bytes(stats.peak_rss_bytes)}",
        f"seed {stats.seed}, model loaded in {format_duration(talk.loaded.load_s)}",
    ):
        talk.terminal.line(f"  {line}")


def _tokens(talk: "Talk", argument: str) -> None:
    count, limit = format_count(talk.num_tokens), format_count(talk.dialogue.timeline.max_tokens)
    waiting = sum(part.media.num_tokens for part in talk.pending_media)
    talk.terminal.line(f"  {count} of {limit} tokens, {len(talk.conversation.messages)} messages")
    if waiting:
        talk.terminal.line(f"  {format_count(waiting)} tokens of media wait for the next message")


def _set(talk: "Talk", argument: str) -> None:
    name, _, value = argument.partition(" ")
    if not name:
        for line in setting_lines(talk.options):
            talk.terminal.line(line)
        return
    talk.options = change_setting(talk.options, name, _required(value.strip(), f"/set {name} VALUE"))
    talk.terminal.note(f"mimo: {name} is {value.strip()}")


def _show(talk: "Talk", argument: str) -> None:
    loaded = talk.loaded
    talk.terminal.line(f"  model {loaded.choice.name} in {loaded.choice.folder}, computed in {loaded.dtype_name}")
    talk.terminal.line(f"  weights {format_bytes(loaded.weight_bytes)}, context {talk.context_share()}")
    for line in setting_lines(talk.options):
        talk.terminal.line(line)


def _clear(talk: "Talk", argument: str) -> None:
    talk.start_anew()
    talk.terminal.note("mimo: a new conversation")


def _help(talk: "Talk", argument: str) -> None:
    for line in help_lines():
        talk.terminal.line(line)


def _quit(talk: "Talk", argument: str) -> None:
    talk.is_over = True


_HANDLERS: dict[str, Callable[["Talk", str], None]] = {
    "image": _attacher("image"),
    "audio": _attacher("audio"),
    "video": _attacher("video"),
    "attach": _attacher("any"),
    "file": _file,
    "system": _system,
    "think": _think,
    "regen": _regen,
    "undo": _undo,
    "save": _save,
    "load": _load,
    "stats": _stats,
    "tokens": _tokens,
    "set": _set,
    "show": _show,
    "clear": _clear,
    "help": _help,
    "quit": _quit,
}


def _required(argument: str, usage: str) -> str:
    if not argument:
        raise UsageError("something is missing", hint=usage)
    return argument


def _required_paths(argument: str, word: str) -> list[str]:
    return paths_of(_required(argument, f"{word} PATH"))

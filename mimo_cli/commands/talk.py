"""The dialogue: reads messages and slash commands from the terminal, answers, saves after every turn.

    Editor -> line -> slash command (talk_commands)
                   -> message + attachments -> Conversation -> turn.show_turn -> saved file

Ctrl-C stops an answer and keeps what is there; while a prompt is being read it takes the message back.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from mimo_cli.chat.chat_file import load_conversation, save_conversation
from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.messages import MediaPart, Message
from mimo_cli.chat.named_files import user_path
from mimo_cli.commands.answer_once import loaded_for_chat, set_given, turn_options
from mimo_cli.commands.chat_request import ChatRequest
from mimo_cli.commands.interrupts import Stopped, ctrl_c_waits
from mimo_cli.commands.loading import LoadedModel, announce
from mimo_cli.commands.numbers import context_share
from mimo_cli.commands.saved_chats import new_chat_path
from mimo_cli.commands.slash import SlashLine, meanings, parse_line, path_words
from mimo_cli.commands.sources import Attachment, read_text_file
from mimo_cli.commands.talk_commands import run_slash_command
from mimo_cli.commands.turn import PromptProgress, TurnResult, TurnStyle, ending_note, show_turn
from mimo_cli.dialogue import Dialogue
from mimo_cli.errors import MimoError, UsageError
from mimo_cli.media.sniff import sniff
from mimo_cli.settings import state_folder
from mimo_cli.terminal.console import Terminal, error_text
from mimo_cli.units import format_count

_LEADING_WORD = re.compile(r"""('[^']+'|"[^"]+"|(?:\\.|[^\s\\])+)(?:\s+|$)""")


class MessageReader(Protocol):
    """Reads one message from the user; `terminal.editor.Editor` is one."""

    def read(self, prompt: str) -> str:
        """Return the next message. Raises KeyboardInterrupt for Ctrl-C, EOFError for Ctrl-D."""
        ...


def talk(request: ChatRequest, terminal: Terminal) -> int:
    """Hold a dialogue until the user leaves; returns the exit code."""
    with loaded_for_chat(request, terminal) as loaded:
        dialogue_talk = Talk(request, terminal, loaded)
        announce(terminal, loaded, dialogue_talk.dialogue.timeline.max_tokens)
        dialogue_talk.begin()
        return dialogue_talk.run(make_editor(request, terminal))


def make_editor(request: ChatRequest, terminal: Terminal) -> MessageReader:
    """Return the editor of the dialogue, with its history file unless that is not wanted."""
    from mimo_cli.terminal.editor import Editor  # prompt_toolkit: nothing else needs it

    history = state_folder() / "history" if request.chat.history else None
    return Editor(terminal, meanings(), path_words(), history)


class Talk:
    """The state of a dialogue: messages and KV cache (`dialogue`), options, what waits for the next message."""

    def __init__(self, request: ChatRequest, terminal: Terminal, loaded: LoadedModel) -> None:
        self.terminal = terminal
        self.loaded = loaded
        self.options = turn_options(request)
        self.shows_thinking = request.shows_thinking(terminal)
        self.pending_media: list[MediaPart] = []
        self.pending_texts: list[str] = []
        self.last_result: TurnResult | None = None
        self.is_over = False
        self._request = request
        self._save_path: Path | None = None
        self._saved: tuple[Message, ...] = ()
        self._wants_saving = request.chat.save
        system = [] if request.system is None else [Message.of("system", request.system)]
        self.dialogue = Dialogue(
            loaded.engine.speaker, Conversation(system, request.tools), context_tokens=request.model.ctx
        )

    @property
    def conversation(self) -> Conversation:
        """The messages so far."""
        return self.dialogue.conversation

    def begin(self) -> None:
        """Take what the command line brought along: a saved dialogue, attachments, text files."""
        path = self._request.resumed
        if path is not None:
            self.load(path)
            set_given(self._request, self.conversation)
            self._save_path = path
        for attachment in self._request.question.attachments:
            self.attach(attachment)
        if self._request.question.text:
            self.pending_texts.append(self._request.question.text)
        self.terminal.note("mimo: /help lists the commands, Ctrl-D leaves")

    def run(self, reader: MessageReader) -> int:
        """Read and answer until the user leaves; returns the exit code. Raises Stopped for an end from outside."""
        while not self.is_over:
            try:
                self._take_or_tell(reader.read(f"mimo {self.context_share()}> "))
            except KeyboardInterrupt:  # at the prompt, or in the middle of a command: that one ends, not the dialogue
                self._save_answer()
            except EOFError:
                break
            except MimoError as err:
                self.terminal.error(error_text(str(err), err.hint))
        if self._save_path:
            self.terminal.note(f"mimo: saved; mimo chat --resume {self._save_path.stem} goes on")
        return 0

    def take(self, line: str) -> None:
        """Act on one line. Raises MimoError for what cannot be done, Stopped to leave at once."""
        line = self._attach_dragged(line)
        read = parse_line(line)
        if isinstance(read, SlashLine):
            run_slash_command(self, read.command.name, read.argument)
        elif read.strip():
            self.say(read)

    def _take_or_tell(self, line: str) -> None:
        """Act on one line; what the system refuses ends that line and not the dialogue. Raises what take raises."""
        try:
            self.take(line)
        except BrokenPipeError:  # nobody reads the answers any more
            raise
        except OSError as err:
            what = f"`{err.filename}`" if err.filename else "the system"
            self.terminal.error(error_text(f"{what}: {err.strerror or err}", "correct that, then the same line again"))

    def say(self, text: str) -> None:
        """Send a message with what waits for it, and show the answer."""
        whole = "\n\n".join([*self.pending_texts, text])
        media, texts = self.pending_media, self.pending_texts
        message = Message.of("user", *media, whole)
        self.pending_media, self.pending_texts = [], []
        self.conversation.add(message)
        is_answered = False
        try:
            is_answered = self.answer()
        finally:
            if not is_answered and self.conversation.messages[-1:] == (message,):
                self.conversation.undo()
                self.pending_media, self.pending_texts = media, texts
                self._tell_waiting()
        if not is_answered:
            self.terminal.note("mimo: stopped; the message was taken back")

    def _tell_waiting(self) -> None:
        """Say that what was attached to a message that was taken back is not lost."""
        count = len(self.pending_media) + len(self.pending_texts)
        if count:
            what = "what was attached waits" if count == 1 else f"the {count} attachments wait"
            self.terminal.note(f"mimo: {what} for the next message; /clear forgets that and the conversation")

    def answer(self) -> bool:
        """Answer the last message of the conversation and show it; False if that was stopped before its first token."""
        progress = PromptProgress(self.terminal)
        answer = self.dialogue.answer(self.options, progress)
        style = TurnStyle(shows_thinking=self.shows_thinking, shows_numbers=True)
        try:
            result = show_turn(answer, self.terminal, style, progress)
        except (KeyboardInterrupt, Stopped) as err:
            progress.finish()
            if isinstance(err, KeyboardInterrupt) and not answer.stats.generated_tokens:
                return False
            if answer.stats.generated_tokens:  # leaving in the middle: keep what is there
                answer.stop()
                self._save()
            raise
        self.last_result = result
        if result.reasoning_tokens and not self.shows_thinking:
            count = format_count(result.reasoning_tokens)
            self.terminal.note(f"mimo: {count} tokens of thinking are hidden; /think show unfolds them")
        if result.finish_reason == "cancelled":
            self.terminal.note("mimo: stopped; /regen answers again")
        note = ending_note(result, self.options.sampling.max_tokens)
        if note:
            self.terminal.warn(note)
        self._save()
        return True

    def attach(self, attachment: Attachment) -> None:
        """Open a medium for the next message. Raises UsageError where this model has no sense for it."""
        core = self.loaded.engine.core
        kind = None if attachment.kind == "any" else attachment.kind
        part = self.loaded.engine.media_opener.open(attachment.source, kind)
        if (part.kind == "audio" and not core.has_audio) or (part.kind != "audio" and not core.has_vision):
            raise UsageError(f"model {self.loaded.choice.name} takes no {part.kind}: it lacks that tower")
        self.pending_media.append(part)
        name = "stdin" if isinstance(attachment.source, bytes) else attachment.source
        count = format_count(part.media.num_tokens)
        self.terminal.note(f"mimo: {name} ({part.kind}, {count} tokens) goes with the next message")
        for note in getattr(part.media, "notes", ()):
            self.terminal.warn(note)

    def attach_text(self, name: str) -> None:
        """Put a text file before the next message."""
        text = read_text_file(name)
        self.pending_texts.append(f"{Path(name).name}:\n{text.strip()}")
        self.terminal.note(f"mimo: {name} ({format_count(len(text))} characters) goes before the next message")

    def load(self, path: Path) -> None:
        """Go on with a saved conversation, in place of this one."""
        engine = self.loaded.engine
        loaded = load_conversation(path, engine.media_opener.open, engine.tokenizer)
        self.dialogue.conversation = loaded
        self._save_path = None
        turns = sum(message.role == "user" for message in loaded.messages)
        self.terminal.note(f"mimo: {turns} question{'' if turns == 1 else 's'} from {path}")
        if loaded.messages:
            self.terminal.note(_shortened(loaded.messages[-1].text))

    def save_as(self, path: Path) -> None:
        """Write the conversation to a file."""
        save_conversation(path, self.conversation, self.loaded.engine.tokenizer)

    def start_anew(self) -> None:
        """Forget the conversation but its system text; the old one stays saved."""
        self.conversation.clear()
        self.last_result, self._save_path = None, None
        self.pending_media, self.pending_texts = [], []

    def context_share(self) -> str:
        """Return how much of the context is taken: `3.1k/32k`."""
        return context_share(self.num_tokens, self.dialogue.timeline.max_tokens)

    @property
    def num_tokens(self) -> int:
        """Tokens of the conversation; the cache may hold more, or less, until the next answer."""
        return self.conversation.num_tokens(self.loaded.engine.speaker.builder)

    def _save(self) -> None:
        if not self._wants_saving:
            return
        try:
            with ctrl_c_waits():
                self._save_path = self._save_path or new_chat_path()
                self.save_as(self._save_path)
                self._saved = self.conversation.messages
        except (MimoError, OSError) as err:
            # Talking must go on; once is enough to know.
            self._wants_saving, self._save_path = False, None
            self.terminal.warn(f"the dialogue is not saved: {err}")

    def _save_answer(self) -> None:
        """Save an answer that a Ctrl-C kept from being saved: it may fall between the last word and the file."""
        messages = self.conversation.messages
        if messages and messages[-1].role == "assistant" and messages != self._saved:
            self._save()

    def _attach_dragged(self, line: str) -> str:
        """Attach the media files whose paths begin a message, as terminals insert files that are dropped on them."""
        while match := _LEADING_WORD.match(line):
            word = match[1]
            name = word[1:-1] if word[0] in "'\"" else re.sub(r"\\(.)", r"\1", word)
            if not name.startswith(("/", "~", "./")) or not _is_medium(name):
                return line
            self.attach(Attachment("any", name))
            line = line[match.end() :]
        return line


def _is_medium(name: str) -> bool:
    with suppress(MimoError, OSError, ValueError):
        path = user_path(name)
        return path.is_file() and sniff(path, allow_text=True) is not None
    return False


def _shortened(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."

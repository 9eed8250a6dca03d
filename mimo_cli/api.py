"""The public Python interface: a loaded model for scripts, over `chat` and `engine`. Names here are stable.

    model = mimo_cli.load("path/to/MiMo-V2.5")
    for event in model.chat([{"role": "user", "content": "Hello"}]):
        ...

Towers alone: mimo_cli.towers. Prompt text without a model: `render_chat`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from mimo_cli.chat.attachments import MediaOpener
from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.media_options import MediaChoices, MediaOptions
from mimo_cli.chat.messages import Message
from mimo_cli.chat.openai_messages import read_messages
from mimo_cli.chat.prompt_builder import PromptBuilder
from mimo_cli.chat.stop import stop_ids
from mimo_cli.chat.template import ChatTemplate, render_chat
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.dialogue import Answer, Dialogue, Speaker, TurnOptions
from mimo_cli.engine.engine import Engine as LoadedEngine
from mimo_cli.engine.generate import Generation, generate
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.errors import UsageError
from mimo_cli.media.prompt import Prompt
from mimo_cli.towers import load_audio, load_vision

__all__ = ["Engine", "SamplingParams", "load", "load_audio", "load_vision", "render_chat"]

_REMEMBERED_ANSWERS = 64


def load(
    path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    context_tokens: int | None = None,
    media: MediaChoices | None = None,
    allow_net: bool = False,
    raw_special_tokens: bool = False,
    **options: Any,
) -> "Engine":
    """Load the model in a folder. Only config.json and the weights are needed for `logits` and `generate`.

    device "auto" or "cpu"; dtype "auto", "float32" or "bfloat16". context_tokens bounds a chat (default 32k, less where
    memory is short). media, allow_net and raw_special_tokens say how `chat` reads its messages. options are the fields
    of engine.load.LoadOptions: window, qkv_chunks, vision_sinks, merger_norm, audio_tables, precision, expert_bytes,
    reading, and ram as on the command line: "16G", "80%", "auto".
    Raises UsageError for settings that do not exist, CheckpointError for files that are missing or wrong,
    CapacityError where memory does not suffice.
    """
    known = {field.name for field in fields(LoadOptions)} - {"context_tokens"}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise UsageError(f"load() has no option `{unknown[0]}`", hint=f"options are {', '.join(sorted(known))}")
    chosen = LoadOptions(context_tokens=context_tokens, **options)
    engine = load_engine(Path(path).expanduser(), device=device, dtype=dtype, options=chosen)
    return Engine(
        engine,
        context_tokens=context_tokens,
        media=media,
        allow_net=allow_net,
        raw_special_tokens=raw_special_tokens,
    )


class Engine:
    """A loaded model. A context manager; one chat or generation at a time.

    `core` is the engine itself (sequences, towers, statistics); the tokenizer is read when text is first needed.
    """

    def __init__(
        self,
        engine: LoadedEngine,
        *,
        context_tokens: int | None = None,
        media: MediaChoices | None = None,
        allow_net: bool = False,
        raw_special_tokens: bool = False,
    ) -> None:
        self.core = engine
        self._context_tokens = context_tokens
        self._media = media
        self._allow_net = allow_net
        self._raw_special_tokens = raw_special_tokens
        self._answers: list[Message] = []  # their ids are used again when they come back in a history

    @property
    def config(self) -> ModelConfig:
        """The checkpoint's configuration."""
        return self.core.config

    @property
    def notes(self) -> tuple[str, ...]:
        """What this checkpoint lacks and what had to be assumed to read it, in sentences."""
        return self.core.notes

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model's folder."""
        return Tokenizer.from_folder(self.core.folder)

    @cached_property
    def speaker(self) -> Speaker:
        """The engine with its text side: tokenizer, chat template, stop ids."""
        folder, config = self.core.folder, self.config
        template, raw = ChatTemplate.from_folder(folder), self._raw_special_tokens
        return Speaker(
            self.core,
            self.tokenizer,
            PromptBuilder(self.tokenizer, template, config.processor, raw_special_tokens=raw),
            stop_ids(folder, config, self.tokenizer),
            self.tokenizer.never_valid_ids(config.vocab_size),
        )

    @cached_property
    def media_opener(self) -> MediaOpener:
        """Opens pictures, films and recordings the way this checkpoint reads them."""
        codec = self.core.media.audio_tokenizer
        options = MediaOptions.of_checkpoint(self.config.processor, codec.config if codec else None, self._media)
        return MediaOpener(options, allow_net=self._allow_net)

    @cached_property
    def _dialogue(self) -> Dialogue:
        return Dialogue(self.speaker, context_tokens=self._context_tokens)

    def logits(self, ids: Iterable[int]) -> torch.Tensor:
        """Return the logits float32 [T, vocab] after each of T token ids; the last row predicts what follows."""
        return self.core.logits(_ids(ids))

    def draft_logits(self, ids: Iterable[int]) -> list[torch.Tensor]:
        """Return the drafts of the MTP modules, float32 [T, vocab] each (none: an empty list).

        Row p of module k predicts token p+2+k. The main model's argmax is taken as the next token and each module's
        draft is the next one's last token, so the argmax of a last row is that module's greedy draft.
        """
        return self.core.draft_logits(_ids(ids))

    def generate(
        self, ids: Iterable[int], params: SamplingParams | Mapping[str, Any] | None = None, **settings: Any
    ) -> Generation:
        """Continue token ids; returns an iterator of steps (`token`, `finish_reason`) with `tokens` and `stats`.

        params are SamplingParams, or their fields, with `settings` in place of some. Where they are no SamplingParams,
        the stop ids are those of config.json unless given. Without max_tokens it goes on until the context is full.
        """
        if not isinstance(params, SamplingParams):
            params = {"stop_ids": self.config.eos_token_ids, **(params or {})}
        params = _sampling(params, settings)
        prompt = Prompt(_ids(ids))
        limit = self._context_tokens
        if limit is None and params.max_tokens is not None:
            limit = min(len(prompt) + params.max_tokens, self.config.max_position_embeddings)
        return generate(self.core.start_sequence(limit), prompt, params)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = True,
        think_budget_tokens: int | None = None,
        loop_guard: bool = True,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Answer:
        """Answer a conversation in OpenAI's shape (media by path, URL or data URI); returns an iterator of events.

        Events are those of chat.events; the last one is Finished, with the whole message and the usage. The iterator's
        `stats` has the timings. Give the finished message back in the next call's messages and only what is new is
        read. `sampling` are fields of SamplingParams. Raises UsageError or MediaError for messages that cannot be read.
        """
        options = TurnOptions(_sampling(None, sampling), thinking, think_budget_tokens, loop_guard, tuple(stop))
        self._remember_answer()
        history = [self._recognised(message) for message in read_messages(messages, self.media_opener.open)]
        self._dialogue.conversation = Conversation(history, tools)
        return self._dialogue.answer(options)

    def close(self) -> None:
        """Give back memory and files. The engine is of no use afterwards."""
        self.core.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _remember_answer(self) -> None:
        """Keep the answer of the call before, if it was finished."""
        last = self._dialogue.conversation.messages[-1:]
        if last and last[0].generated is not None:
            self._answers = [*self._answers, last[0]][-_REMEMBERED_ANSWERS:]

    def _recognised(self, message: Message) -> Message:
        """Return our own answer with its ids where a message of the history equals it."""
        if message.role != "assistant" or message.generated is not None:
            return message
        return next((answer for answer in reversed(self._answers) if answer == message), message)


def _ids(ids: Iterable[int]) -> tuple[int, ...]:
    if isinstance(ids, torch.Tensor):
        ids = ids.flatten().tolist()
    return tuple(int(token_id) for token_id in ids)


def _sampling(params: SamplingParams | Mapping[str, Any] | None, settings: Mapping[str, Any]) -> SamplingParams:
    known = {field.name for field in fields(SamplingParams)}
    given = params if isinstance(params, SamplingParams) else SamplingParams()
    changes = {**(params if isinstance(params, Mapping) else {}), **settings}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise UsageError(f"sampling has no setting `{unknown[0]}`", hint=f"settings are {', '.join(sorted(known))}")
    return replace(given, **changes)

"""Samples become token ids: exactly the ids that the runtime builds for the same messages.

`PromptBuilder` does the work for tools, earlier turns and films; the common case (system, user turns) is assembled
here from cached pieces. Tests hold both equal. Media rows are keyed so that packing sees which beginnings are equal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mimo_cli.chat.messages import AudioPart, ImagePart, Message, TextPart, ToolCall, VideoPart
from mimo_cli.chat.placeholders import Kind, MediaIds
from mimo_cli.chat.prompt_builder import PromptBuilder
from mimo_cli.chat.template import ChatTemplate
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.media.types import AudioInput, ImageInput, VideoInput
from training.architecture import model_config
from training.data.sample import Part, Sample
from training.words import WordVocabulary, load_tokenizer

ROWS_A_MEDIUM = 4096
DEFAULT_SYSTEM = "You are MiMo, a helpful AI assistant engineered by Xiaomi."  # the template's own


@dataclass(frozen=True)
class MediaStub:
    """What a prompt must know of a medium: its number, its kind and its rows; a film's steps and their times."""

    uid: int
    kind: Kind
    rows: int
    times_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Example:
    """Ids of prompt and answer; `answer` is where the answer begins (behind `assistant` and its line break).

    `keys` equals ids but at media rows, where it is -(1 + uid * ROWS_A_MEDIUM + row).
    """

    ids: np.ndarray
    keys: np.ndarray
    answer: int
    task: str = ""
    scored: int = 0  # where the visible answer begins, behind the reasoning

    def __len__(self) -> int:
        return len(self.ids)


class Prompter:
    """Builds examples for one vocabulary."""

    def __init__(self, vocabulary: WordVocabulary) -> None:
        self.tokenizer = Tokenizer(load_tokenizer(vocabulary), "words.json")
        self.config = ModelConfig.from_dict(model_config(vocabulary))
        self.template = ChatTemplate.built_in()
        self.builder = PromptBuilder(self.tokenizer, self.template, self.config.processor)
        self.encode = lru_cache(maxsize=200_000)(self._encode)
        added = self.tokenizer.added_tokens
        self._start, self._end = added["<|im_start|>"], added["<|im_end|>"]
        self._think = [added["<think>"]], [added["</think>"]]
        processor = self.config.processor
        self._markers = MediaIds.from_processor(processor).triples

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, added_tokens=False)) if text else ()

    def example(self, sample: Sample, media: Sequence[MediaStub] = ()) -> Example:
        """Ids of a sample whose media are described by `media`, in order."""
        special = sample.tools or sample.tool_calls
        plain = not (special or any(stub.kind == "video" for stub in media))
        if plain:
            ids, spans = self._plain_prompt(sample, media)
        else:
            prompt = self.builder.build(*self._messages(sample, media), thinking=True)
            ids = list(prompt.ids)
            spans = [(span.start, span.length, media[span.item].uid, span.offset) for span in prompt.spans]
        start = len(ids)
        answer = [*self._think[0], *self.encode(sample.reasoning or ""), *self._think[1]]
        scored = start + len(answer)
        answer += self._answer_ids(sample)
        whole = np.array([*ids, *answer, self._end], np.int64)
        keys = whole.copy()
        for first, length, uid, offset in spans:
            keys[first : first + length] = -(1 + uid * ROWS_A_MEDIUM + offset + np.arange(length))
        return Example(whole, keys, start, sample.task, scored)

    def _plain_prompt(self, sample: Sample, media: Sequence[MediaStub]) -> tuple[list[int], list[tuple[int, ...]]]:
        system = DEFAULT_SYSTEM if sample.system is None else sample.system
        ids = [self._start, *self.encode("system\n" + system), self._end, self._start]
        spans: list[tuple[int, ...]] = []
        waiting = iter(media)
        for said, answer in sample.earlier:
            self._user_turn(said, waiting, ids, spans)
            ids += [*self._think[0], *self._think[1], *self.encode(answer), self._end, self._start]
        self._user_turn(sample.user, waiting, ids, spans)
        return ids, spans

    def _user_turn(
        self, parts: Sequence[Part], waiting: Iterator[MediaStub], ids: list[int], spans: list[tuple[int, ...]]
    ) -> None:
        """Append a user's turn, from behind its start mark to where the answer begins."""
        text = "user\n"
        for part in parts:
            if isinstance(part, str):
                text += part
                continue
            stub = next(waiting)
            start, pad, end = self._markers[stub.kind]
            ids += [*self.encode(text), start]
            text = ""
            spans.append((len(ids), stub.rows, stub.uid, 0))
            ids += [pad] * stub.rows + [end]
        ids += [*self.encode(text), self._end, self._start, *self.encode("assistant\n")]

    def _answer_ids(self, sample: Sample) -> list[int]:
        if not sample.tool_calls or sample.tool_results:
            return list(self.encode(sample.answer))
        messages = [Message.of("user", "a"), Message("assistant", (TextPart(sample.answer),), "", _calls(sample))]
        whole = self.builder.build(messages, add_generation_prompt=False).ids
        without = self.builder.build(messages[:1]).ids
        return list(whole[len(without) + 2 : -1])  # behind <think></think>, before the end of the turn

    def _messages(self, sample: Sample, media: Sequence[MediaStub]) -> tuple[list[Message], list | None]:
        messages = [] if sample.system is None else [Message.of("system", sample.system)]
        waiting = iter(media)
        for said, answer in sample.earlier:
            messages.append(_user_message(said, waiting))
            messages.append(Message("assistant", (TextPart(answer),), ""))
        messages.append(_user_message(sample.user, waiting))
        if sample.tool_results:
            messages.append(Message("assistant", (), "", _calls(sample)))
            for number, result in enumerate(sample.tool_results):
                messages.append(Message("tool", (TextPart(result),), tool_call_id=f"call_{number}"))
        return messages, list(sample.tools) or None


def _calls(sample: Sample) -> tuple[ToolCall, ...]:
    calls = enumerate(sample.tool_calls)
    return tuple(ToolCall(name, arguments, f"call_{number}") for number, (name, arguments) in calls)


def _user_message(said: Sequence[Part], waiting: Iterator[MediaStub]) -> Message:
    parts = [TextPart(part) if isinstance(part, str) else _media_part(next(waiting)) for part in said]
    return Message("user", tuple(parts))


def _media_part(stub: MediaStub) -> ImagePart | AudioPart | VideoPart:
    """A part that promises its rows and has no content."""
    if stub.kind == "image":
        return ImagePart(ImageInput("", (1, 1), (1, 2, 2 * stub.rows), stub.rows, iter))  # type: ignore[arg-type]
    if stub.kind == "audio":
        return AudioPart(AudioInput("", 1, stub.rows, iter))  # type: ignore[arg-type]
    steps = len(stub.times_s)
    times = np.array(stub.times_s, np.float32)
    step_rows = stub.rows // steps
    return VideoPart(
        VideoInput("", (1, 1), (steps, 2, 2 * step_rows), times, np.float32(0), step_rows, iter, None)  # type: ignore[arg-type]
    )

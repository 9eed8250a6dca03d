"""Media parts become runs of placeholder ids, and the spans that say whose encoded rows fill them.

    template:  start, pad, end            (one triple per part, in order)
    picture:   start, pad x n, end        recording: the same with its own ids
    film:      video start, then per step: time label as text, start, pad x n, end [, sound]; video end

The k-th triple of a kind stands for the k-th part of that kind; ids come from the checkpoint's `processor_config`.
Source: vision specification, sections 5, 10.6 and 11; audio specification, sections 11 and 12.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from mimo_cli.chat.messages import AudioPart, ImagePart, MediaPart, VideoPart
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.processor_config import ProcessorConfig
from mimo_cli.errors import UsageError
from mimo_cli.media.layout import Label, SoundTrack, video_layout
from mimo_cli.media.prompt import MediaInput, Prompt, Span, Stream

Kind: TypeAlias = Literal["image", "video", "audio"]
T = TypeVar("T")

_NAMES: dict[Kind, str] = {"image": "picture", "video": "film", "audio": "recording"}


class Triple(NamedTuple):
    """Ids of one kind of placeholder: start, pad, end."""

    start: int
    pad: int
    end: int


@dataclass(frozen=True)
class MediaIds:
    """The ids around media. A kind that the model does not know has no triple."""

    triples: dict[Kind, Triple]
    video_start: int | None
    video_end: int | None

    @classmethod
    def from_processor(cls, processor: ProcessorConfig) -> "MediaIds":
        """Take the ids of a checkpoint; kinds with an id missing are left out."""
        vision_start, vision_end = processor.vision_start_token_id, processor.vision_end_token_id
        found: dict[Kind, tuple[int | None, int | None, int | None]] = {
            "image": (vision_start, processor.image_token_id, vision_end),
            "video": (vision_start, processor.video_token_id, vision_end),
            "audio": (processor.audio_start_token_id, processor.audio_token_id, processor.audio_end_token_id),
        }
        triples: dict[Kind, Triple] = {}
        for kind, (start, pad, end) in found.items():
            if start is not None and pad is not None and end is not None:
                triples[kind] = Triple(start, pad, end)
        return cls(triples, processor.video_start_token_id, processor.video_end_token_id)

    def match(self, ids: Sequence[int | None], start: int) -> tuple[Kind, int] | None:
        """Find a placeholder at `start`: a start id, one or more pads, an end id; return its kind and its stop."""
        for kind, triple in self.triples.items():
            stop = start + 1
            while stop < len(ids) and ids[stop] == triple.pad:
                stop += 1
            if ids[start] == triple.start and stop > start + 1 and stop < len(ids) and ids[stop] == triple.end:
                return kind, stop + 1
        return None

    def is_pad(self, token_id: int) -> bool:
        """Tell whether an id stands for a row of some medium."""
        return any(token_id == triple.pad for triple in self.triples.values())


class MediaQueue:
    """The media parts of some messages, handed out one by one to the placeholders of their kind."""

    def __init__(self, parts: Iterable[MediaPart]) -> None:
        self._waiting: dict[Kind, deque[MediaPart]] = {kind: deque() for kind in _NAMES}
        for part in parts:
            self._waiting[part.kind].append(part)
        self._given = {kind: len(parts) for kind, parts in self._waiting.items()}
        self._found = dict.fromkeys(_NAMES, 0)

    def take(self, kind: Kind) -> MediaPart | None:
        """Return the next part of a kind, or None when there are more placeholders than parts."""
        self._found[kind] += 1
        return self._waiting[kind].popleft() if self._waiting[kind] else None

    def check(self) -> None:
        """Raise UsageError unless every kind had as many placeholders as parts."""
        for kind, name in _NAMES.items():
            if self._found[kind] != self._given[kind]:
                raise UsageError(
                    f"the chat template wrote {self._found[kind]} placeholders for {self._given[kind]} {name}(s)",
                    hint="this model's template may not know that kind of input",
                )


class PromptWriter:
    """Collects ids, spans and items of one prompt, after those of `base` if there is one."""

    def __init__(self, tokenizer: Tokenizer, processor: ProcessorConfig, base: Prompt | None = None) -> None:
        self._tokenizer = tokenizer
        self._processor = processor
        self.media_ids = MediaIds.from_processor(processor)
        self._ids: list[int] = list(base.ids) if base else []
        self._spans: list[Span] = list(base.spans) if base else []
        self._items: list[MediaInput] = list(base.items) if base else []

    def prompt(self) -> Prompt:
        """Return what was collected."""
        return Prompt(tuple(self._ids), tuple(self._spans), tuple(self._items))

    def write_ids(self, ids: Iterable[int]) -> None:
        """Append ids as they are."""
        self._ids.extend(ids)

    def write_media(self, part: MediaPart) -> None:
        """Append a medium: markers, labels and placeholders, with the spans they stand for."""
        item = len(self._items)
        self._items.append(part.media)
        if isinstance(part, VideoPart):
            self._write_video(part, item)
        elif isinstance(part, ImagePart):
            self._write_rows("image", "vision", item, 0, part.media.num_tokens)
        elif isinstance(part, AudioPart):
            self._write_rows("audio", "audio", item, 0, part.media.num_tokens)

    def _write_video(self, part: VideoPart, item: int) -> None:
        video = part.media
        sound = None
        if video.audio is not None:
            sound = SoundTrack(
                num_tokens=video.audio.num_tokens,
                segment_end_s=float(video.segment_end_s),
                interleave_s=self._processor.video_audio_interleave_length,
                tokens_per_second=self._processor.audio_tokens_per_second,
            )
        self._ids.append(_known(self.media_ids.video_start, "video"))
        for piece in video_layout(video.timestamps_s.tolist(), video.step_tokens, sound):
            if isinstance(piece, Label):
                self._ids += self._tokenizer.encode(piece.text, added_tokens=False)
            else:
                kind: Kind = "video" if piece.kind == "vision" else "audio"
                self._write_rows(kind, piece.kind, item, piece.offset, piece.length)
        self._ids.append(_known(self.media_ids.video_end, "video"))

    def _write_rows(self, kind: Kind, stream: Stream, item: int, offset: int, length: int) -> None:
        triple = _known(self.media_ids.triples.get(kind), kind)
        self._ids.append(triple.start)
        if length:
            self._spans.append(Span(len(self._ids), length, item, stream, offset))
        self._ids += [triple.pad] * length
        self._ids.append(triple.end)


def _known(value: T | None, kind: Kind) -> T:
    if value is None:
        raise UsageError(f"this model takes no {_NAMES[kind]}: its configuration has no ids for it")
    return value

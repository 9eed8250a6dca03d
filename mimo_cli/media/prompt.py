"""Prompt: token ids, the media inputs beside them, and the spans of ids that their encoded rows fill.

Built by `chat`, consumed by `engine`; it knows neither text nor tensors. A span says which rows of which item
replace the embeddings of which ids, so nobody ever searches ids or text for placeholders.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mimo_cli.media.types import MediaInput

Stream: TypeAlias = Literal["vision", "audio"]


@dataclass(frozen=True)
class Span:
    """Rows `offset` to `offset + length` of one stream of item `item` go to `ids[start : start + length]`.

    `stream` tells the pictures of a video from its sound track; an AudioInput has only "audio", an ImageInput only
    "vision".
    """

    start: int
    length: int
    item: int
    stream: Stream
    offset: int = 0

    @property
    def stop(self) -> int:
        """First position behind the span."""
        return self.start + self.length


@dataclass(frozen=True)
class Prompt:
    """Token ids with the media inputs that fill their spans. Spans are in rising order and do not overlap.

    Raises ValueError where they do, or where one leaves the ids or names no item: our own mistake, not the user's.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...] = ()
    items: tuple[MediaInput, ...] = ()

    def __post_init__(self) -> None:
        position = 0
        for span in self.spans:
            if span.length < 1 or span.offset < 0 or span.start < position or span.stop > len(self.ids):
                raise ValueError(f"{span} does not follow position {position} of {len(self.ids)} ids")
            if not 0 <= span.item < len(self.items):
                raise ValueError(f"{span} names none of {len(self.items)} items")
            position = span.stop

    def __len__(self) -> int:
        return len(self.ids)

    def head(self, length: int) -> "Prompt":
        """Return the first ids, with the spans and items that lie in them; a span must not be cut in two."""
        spans = tuple(span for span in self.spans if span.start < length)
        return Prompt(self.ids[:length], spans, self.items[: max((span.item + 1 for span in spans), default=0)])

    def followed_by(self, ids: tuple[int, ...]) -> "Prompt":
        """Return this prompt with more ids of text at its end, such as the answer to it."""
        return Prompt(self.ids + ids, self.spans, self.items)

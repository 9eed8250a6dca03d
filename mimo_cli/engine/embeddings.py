"""Media inputs become embedding rows: streamed through the towers, remembered by content.

An item is decoded a bounded piece at a time (8 temporal steps of a film, one minute of sound); only its rows stay.
Rows are known by a digest of the pixel values or mel spectrograms they came from, so the same picture in a later turn,
or opened twice, is encoded once, and two pictures of equal size are never taken for each other.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mimo_cli.engine.stats import OnProgress, Progress
from mimo_cli.errors import MediaError, MimoError
from mimo_cli.media.prompt import Prompt, Stream
from mimo_cli.media.types import AudioInput, ImageInput, MediaInput, VideoInput
from mimo_cli.model.audio import AudioEncoder
from mimo_cli.model.audio_tokenizer import AudioTokenizer
from mimo_cli.model.vision import VisionTower

ROWS_BUDGET_BYTES = 512 * 2**20
"""Rows kept for later turns: 65,000 tokens of V2.5 in bfloat16. The KV cache is what makes a turn cheap, not these."""

_AUDIO_GROUPS_PER_PASS = 512
"""Groups of codes projected at once; the projection's inner layer is 16,384 wide in V2.5 (32 MB in float32)."""

ContentKey: TypeAlias = bytes

_Tower = TypeVar("_Tower")
_Report: TypeAlias = Callable[[int], None]


class MediaEncoder:
    """The towers of an engine and the rows they made. Without a tower its media are refused with MediaError."""

    def __init__(
        self,
        vision: VisionTower | None,
        audio_tokenizer: AudioTokenizer | None,
        audio: AudioEncoder | None,
        *,
        hidden_size: int,
        dtype: torch.dtype,
        budget_bytes: int = ROWS_BUDGET_BYTES,
    ) -> None:
        self.vision = vision
        self.audio_tokenizer = audio_tokenizer
        self.audio = audio
        self.hidden_size = hidden_size
        self.dtype = dtype
        self.budget_bytes = budget_bytes
        self._rows: OrderedDict[ContentKey, Tensor] = OrderedDict()  # the one used last stands last
        self._keys: WeakKeyDictionary[MediaInput, dict[Stream, ContentKey]] = WeakKeyDictionary()

    def rows(self, item: MediaInput, stream: Stream, on_progress: OnProgress | None = None) -> Tensor:
        """Return the embedding rows [n, H] of one stream of an item, n as the item promised.

        Peak memory beyond the rows: one piece of the medium and the tower's activations for it. Raises MediaError where
        the checkpoint lacks the tower or the medium cannot be decoded, MimoError where the rows are not n.
        """
        key = self._keys.get(item, {}).get(stream)
        if key is None or key not in self._rows:
            key, rows = self._encode(item, stream, on_progress)
            self._remember(item, stream, key, rows)
        rows = self._rows[key]
        self._rows.move_to_end(key)
        self._forget()
        return rows

    def key(self, item: MediaInput, stream: Stream) -> ContentKey:
        """Return what identifies the content of a stream; decodes it once where the item is new."""
        keys = self._keys.setdefault(item, {})
        if stream not in keys:
            digest = _new_digest()
            for piece in _pieces(item, stream):
                _digest_piece(digest, piece)
            keys[stream] = digest.digest()
        return keys[stream]

    def _encode(self, item: MediaInput, stream: Stream, on_progress: OnProgress | None) -> tuple[ContentKey, Tensor]:
        expected = stream_tokens(item, stream)
        rows = torch.empty(expected, self.hidden_size, dtype=self.dtype)
        digest, done = _new_digest(), 0

        def report(done_tokens: int) -> None:
            if on_progress:
                on_progress(Progress("encode", min(done_tokens, expected), expected, item.source))

        encode = self._encode_sound if stream == "audio" else self._encode_pictures
        for part in encode(item, digest, report):
            if done + len(part) <= expected:
                rows[done : done + len(part)] = part
            done += len(part)
        if done != expected:
            raise MimoError(f"`{item.source}` was encoded to {done} rows, {expected} expected by its size")
        return digest.digest(), rows

    def _encode_pictures(self, item: MediaInput, digest: hashlib.blake2b, report: _Report) -> Iterator[Tensor]:
        tower, done = self._present(self.vision, "vision tower", item), 0
        for pixel_values, grid_thw in _pieces(item, "vision"):
            _digest_piece(digest, (pixel_values, grid_thw))
            with torch.inference_mode():
                part = tower(torch.from_numpy(pixel_values), torch.from_numpy(grid_thw))
            del pixel_values  # not two pieces at once: the next one is decoded before the loop variable is replaced
            done += len(part)
            report(done)
            yield part

    def _encode_sound(self, item: MediaInput, digest: hashlib.blake2b, report: _Report) -> Iterator[Tensor]:
        # Groups of codes may straddle segments: a recording's codes are joined (20 numbers per 40 ms) before grouping.
        tokenizer = self._present(self.audio_tokenizer, "audio encoder", item)
        encoder = self._present(self.audio, "audio encoder", item)
        codes, group_size = [], encoder.config.group_size
        for (mel,) in _pieces(item, "audio"):
            _digest_piece(digest, (mel,))
            codes.append(tokenizer.codes(torch.from_numpy(mel)))
            del mel
            report(sum(map(len, codes)) // group_size)  # the codec is six sevenths of the work
        for part_codes in torch.cat(codes).split(group_size * _AUDIO_GROUPS_PER_PASS):
            with torch.inference_mode():
                part = encoder(part_codes)
            yield part

    def _present(self, tower: _Tower | None, name: str, item: MediaInput) -> _Tower:
        if tower is None:
            raise MediaError(
                f"`{item.source}` cannot be read: this checkpoint has no {name}",
                hint="use a checkpoint of MiMo-V2.5, which has vision and audio; Flash and Pro read text only",
            )
        return tower

    def _remember(self, item: MediaInput, stream: Stream, key: ContentKey, rows: Tensor) -> None:
        self._keys.setdefault(item, {})[stream] = key
        self._rows[key] = rows

    def _forget(self) -> None:
        used_bytes = sum(rows.nbytes for rows in self._rows.values())
        while used_bytes > self.budget_bytes and len(self._rows) > 1:
            used_bytes -= self._rows.popitem(last=False)[1].nbytes


class EncodedRows:
    """The rows of all items of one prompt that are still to be read, held until the prompt is read."""

    def __init__(self, prompt: Prompt, start: int, encoder: MediaEncoder, on_progress: OnProgress | None) -> None:
        """Encode whatever fills positions from `start` on. Raises what MediaEncoder.rows raises, and MimoError where a
        span asks for rows that its item has not."""
        self._spans = [span for span in prompt.spans if span.stop > start]
        self._rows: dict[tuple[int, Stream], Tensor] = {}
        for span in self._spans:
            if (span.item, span.stream) not in self._rows:
                self._rows[span.item, span.stream] = encoder.rows(prompt.items[span.item], span.stream, on_progress)
            rows = self._rows[span.item, span.stream]
            if span.offset + span.length > len(rows):
                source = prompt.items[span.item].source
                raise MimoError(
                    f"positions {span.start} to {span.stop - 1} ask for rows up to {span.offset + span.length} of "
                    f"`{source}`, which has {len(rows)}"
                )

    def put(self, embeddings: Tensor, start: int) -> None:
        """Overwrite the rows of embeddings [n, H] (positions `start` on, changed in place) that media stand for."""
        stop = start + len(embeddings)
        for span in self._spans:
            low, high = max(span.start, start), min(span.stop, stop)
            if low < high:
                first = span.offset + low - span.start
                embeddings[low - start : high - start] = self._rows[span.item, span.stream][first : first + high - low]


def stream_tokens(item: MediaInput, stream: Stream) -> int:
    """Return how many rows a stream of an item has. Raises MediaError where there is no such stream."""
    if stream == "audio":
        return _sound(item).num_tokens
    if isinstance(item, (ImageInput, VideoInput)):
        return item.num_tokens
    raise MediaError(f"`{item.source}` has no picture")


def _sound(item: MediaInput) -> AudioInput:
    sound = item.audio if isinstance(item, VideoInput) else item
    if not isinstance(sound, AudioInput):
        raise MediaError(f"`{item.source}` has no sound")
    return sound


def _pieces(item: MediaInput, stream: Stream) -> Iterator[tuple[np.ndarray, ...]]:
    if stream == "audio":
        return ((mel,) for mel in _sound(item).segments())
    return item.chunks()  # type: ignore[union-attr]  # stream_tokens refused the rest


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _digest_piece(digest: hashlib.blake2b, piece: tuple[np.ndarray, ...]) -> None:
    for array in piece:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)

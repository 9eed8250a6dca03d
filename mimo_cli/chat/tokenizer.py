"""Ids <-> text: the checkpoint's `tokenizer.json`, a byte-level BPE with added tokens.

The one place that knows the tokenizer library. Added tokens (`<|im_end|>`, `<think>`, ...) are read from text only on
request, so that what a user types cannot become one. Decoding is done here byte by byte, whole or in a stream.
Source: chat specification, section 2.
"""

import codecs
import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import decoders

from mimo_cli.errors import CheckpointError


class Tokenizer:
    """A loaded tokenizer. `added_tokens` maps the text of each added token to its id."""

    def __init__(self, backend: tokenizers.Tokenizer, source: str) -> None:
        if not isinstance(backend.decoder, decoders.ByteLevel):
            kind = type(backend.decoder).__name__
            raise CheckpointError(f"`{source}`: decoder `{kind}` is not implemented, only the byte-level one")
        self.source = source
        self._backend = backend
        # The same model and splitting without any added token: it shares the vocabulary, so it costs nothing.
        self._plain_backend = tokenizers.Tokenizer(backend.model)
        self._plain_backend.normalizer = backend.normalizer
        self._plain_backend.pre_tokenizer = backend.pre_tokenizer
        added = backend.get_added_tokens_decoder()
        self.added_tokens: dict[str, int] = {token.content: token_id for token_id, token in added.items()}
        self.special_ids: frozenset[int] = frozenset(token_id for token_id, token in added.items() if token.special)
        self._added_texts = {token_id: text for text, token_id in self.added_tokens.items()}
        self._bytes_of: dict[int, bytes] = {}

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Load `tokenizer.json` of a model folder. Raises CheckpointError where it is missing or damaged."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"`{path}` is missing", hint="fetch the tokenizer files of the release too")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), str(path))
        except CheckpointError:
            raise
        except Exception as err:  # the library raises nothing narrower
            raise CheckpointError(f"`{path}` is not a tokenizer: {err}", hint="fetch that file again") from err

    def encode(self, text: str, *, added_tokens: bool) -> list[int]:
        """Encode text; no BOS or EOS is added.

        With added_tokens their texts become their ids; without, they are ordinary text. Lone surrogates become U+FFFD.
        """
        backend = self._backend if added_tokens else self._plain_backend
        return backend.encode(_well_formed(text), add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Decode ids to text; bytes that are no UTF-8 become U+FFFD. skip_special drops tokens flagged special."""
        stream = self.stream(skip_special=skip_special)
        return "".join([stream.push(token_id) for token_id in ids]) + stream.finish()

    def stream(self, *, skip_special: bool = False) -> "TextStream":
        """Start decoding token by token."""
        return TextStream(self, skip_special)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for; none for an id that does not exist."""
        known = self._bytes_of.get(token_id)
        if known is None:
            known = self._bytes_of[token_id] = self._look_up(token_id)
        return known

    def knows(self, token_id: int) -> bool:
        """Tell whether an id stands for a token."""
        return 0 <= token_id < 1 << 32 and self._backend.id_to_token(token_id) is not None

    def never_valid_ids(self, vocab_size: int) -> tuple[int, ...]:
        """Return the ids below vocab_size (the rows of the output head) that stand for nothing; never sample them."""
        return tuple(i for i in range(vocab_size) if not self.knows(i))

    @cached_property
    def vocab_size(self) -> int:
        """Number of known ids, added tokens included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that decides how text becomes ids; takes a moment with a large vocabulary."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def _look_up(self, token_id: int) -> bytes:
        if token_id in self._added_texts:
            return self._added_texts[token_id].encode()
        symbols = self._backend.id_to_token(token_id) if self.knows(token_id) else None
        return bytes(_BYTE_OF_SYMBOL[symbol] for symbol in symbols or "")


class TextStream:
    """Decodes one token at a time and gives out whole characters only; bytes of a character under way are held back."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Return the characters that this token completes, often none."""
        return "" if token_id in self._skipped else self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        """Return what is left, as U+FFFD where a character was never completed."""
        return self._decoder.decode(b"", final=True)


def _byte_of_symbol() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others, in rising order, for code points from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)).difference(printable))
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_SYMBOL = _byte_of_symbol()


def _well_formed(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded, and join paired ones."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

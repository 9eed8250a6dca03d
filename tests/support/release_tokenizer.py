"""The release's own tokenizer, rebuilt from the Qwen rank file inside the PyPI wheel `dashscope` 2.0.2.

The result is cached in build/; both halves of the vocabulary are checked against the hashes of the release's files.
"""

import base64
import hashlib
import json
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.tiny_tokenizer import ADDED_TOKENS, tokenizer_json

BUILD = Path(__file__).parents[2] / "build" / "release_tokenizer"
RANKS = "dashscope/resources/qwen.tiktoken"
VOCAB_SHA256, MERGES_SHA256 = "ca10d7e9fb3ed185", "599bab5407508877"
FIRST_ADDED_ID = 151643


class Unavailable(Exception):
    """The wheel cannot be had here; says why."""


def release_folder() -> Path:
    """Return a folder with the release's `tokenizer.json`, made once; raises Unavailable."""
    path = BUILD / "tokenizer.json"
    if not path.is_file():
        BUILD.mkdir(parents=True, exist_ok=True)
        vocab, merges = read_release()
        path.write_text(
            json.dumps(tokenizer_json(vocab, merges, added_ids(FIRST_ADDED_ID)), ensure_ascii=False), "utf-8"
        )
    return BUILD


def added_ids(first: int) -> dict[str, int]:
    """Number the release's added tokens from `first` on."""
    return {token: first + i for i, token in enumerate(ADDED_TOKENS)}


def read_release() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges in the byte alphabet, checked against the release's hashes."""
    ranks = _ranks(_wheel())
    letters = byte_letters()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocab = {spell(token): rank for token, rank in ranks.items()}
    pairs = (_merge(token, ranks) for token in ranks if len(token) > 1)
    merges = [(spell(left), spell(right)) for left, right in pairs]
    compact = json.dumps(vocab, ensure_ascii=False, separators=(",", ":"))
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    _check("vocabulary", compact, VOCAB_SHA256)
    _check("merges", lines, MERGES_SHA256)
    return vocab, merges


def byte_letters() -> list[str]:
    """Return the printable letter of each byte: GPT-2's table."""
    letters, extra = [], 0
    for byte in range(256):
        is_printable = 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174
        letters.append(chr(byte) if is_printable else chr(256 + extra))
        extra += not is_printable
    return letters


def subset(vocab: dict[str, int], merges: Iterable[tuple[str, str]], texts: Iterable[str]) -> dict[str, Any]:
    """Return the content of a `tokenizer.json` that cuts these texts as the whole one does.

    It keeps every merge whose result occurs in some text: no other one can ever apply to them.
    """
    letters = byte_letters()
    normal = "\n".join(unicodedata.normalize("NFC", text) for text in texts)
    spelled = "".join(letters[byte] for byte in normal.encode())
    kept = [pair for pair in merges if "".join(pair) in spelled]
    tokens = {*letters, *("".join(pair) for pair in kept)}
    return tokenizer_json({t: i for t, i in vocab.items() if t in tokens}, kept, added_ids(FIRST_ADDED_ID))


def _check(what: str, content: str, sha256_start: str) -> None:
    found = hashlib.sha256(content.encode()).hexdigest()
    assert found.startswith(sha256_start), f"{what}: sha256 {found}, expected {sha256_start}..."


def _wheel() -> Path:
    found = list(BUILD.glob("dashscope-*.whl"))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(BUILD), "dashscope==2.0.2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        found = list(BUILD.glob("dashscope-*.whl"))
        if not found:
            raise Unavailable(f"the wheel dashscope 2.0.2 cannot be downloaded: {done.stderr.strip()[-200:]}")
    return found[0]


def _ranks(wheel: Path) -> dict[bytes, int]:
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(RANKS).decode("ascii").split("\n")
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Find the last merge of a token: join its bytes by the ranks below its own until two pieces remain."""
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in pairwise(pieces)]
        best = min(joined)
        assert best < ranks[token], f"{token!r} cannot be built from tokens of lower rank"
        i = joined.index(best)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return pieces[0], pieces[1]

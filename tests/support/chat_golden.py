"""The reference renderings and readings in tests/golden/chat."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from mimo_cli.chat.tokenizer import Tokenizer

FOLDER = Path(__file__).parents[1] / "golden" / "chat"


@lru_cache
def render_cases() -> list[dict[str, Any]]:
    """Return the reference renderings."""
    return json.loads((FOLDER / "cases.json").read_text("utf-8"))["cases"]


@lru_cache
def parse_cases() -> list[dict[str, Any]]:
    """Return the reference readings."""
    return json.loads((FOLDER / "parse_cases.json").read_text("utf-8"))["cases"]


@lru_cache
def subset_tokenizer() -> Tokenizer:
    """Return the part of the release's tokenizer that the reference prompts need, with the release's ids."""
    path = FOLDER / "tokenizer_subset.json"
    return Tokenizer(Backend.from_file(str(path)), str(path))


def by_name(case: dict[str, Any]) -> str:
    """Name a case in test ids."""
    return case["name"]

"""An engine that says what it is told: everything of a command but the network, with scripted answers.

Prompts, sampling, reasoning, tool calls, interrupts and output are the real ones; only logits are made up. It stands
in for `load_engine`, beside the configuration and the tokenizer of the bundled miniature.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.sequence import PrefillReport
from mimo_cli.engine.stats import ExpertTraffic, OnProgress, Progress
from mimo_cli.errors import ContextOverflowError
from mimo_cli.media.prompt import Prompt

STOP = "<|im_end|>"


@dataclass
class Script:
    """One answer: its text, with control tokens spelt out, and what happens before its n-th token is decided.

    An action at 0 happens while the prompt is read. Without the stop token at its end the answer stops short of it
    and goes on with the last token for ever.
    """

    text: str
    actions: dict[int, Callable[[], None]] = field(default_factory=dict)


class FakeSequence:
    """A timeline whose logits are one-hot on the script."""

    def __init__(self, engine: "FakeEngine", max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.vocab_size = engine.config.vocab_size
        self.last_prefill = PrefillReport()
        self.ids: list[int] = []
        self._engine = engine
        self._script: Script | None = None
        self._tokens: list[int] = []
        self._position = 0

    @property
    def length(self) -> int:
        """Tokens in the pretended KV cache."""
        return len(self.ids)

    @property
    def kv_bytes(self) -> int:
        """A hundred bytes a token."""
        return 100 * self.length

    def expert_traffic(self) -> ExpertTraffic:
        """No experts."""
        return ExpertTraffic()

    def prefill(self, prompt: Prompt, chunk_tokens: int | None = None, on_progress: OnProgress | None = None) -> Tensor:
        """Take the prompt and begin the next script."""
        if len(prompt) > self.max_tokens:
            raise ContextOverflowError(f"the prompt has {len(prompt):,} tokens, the context holds {self.max_tokens:,}")
        common = next((i for i, (a, b) in enumerate(zip(self.ids, prompt.ids, strict=False)) if a != b), len(self.ids))
        common = min(common, len(prompt) - 1)
        self._engine.prompt_ids.append(prompt.ids)
        self._engine.prompts.append(self._engine.tokenizer.decode(prompt.ids))
        self._script = self._engine.scripts.pop(0)
        self._tokens = self._engine.tokenizer.encode(self._script.text, added_tokens=True)
        self._position = 0
        self._act()
        self.ids = list(prompt.ids)
        self.last_prefill = PrefillReport(common, len(prompt) - common, 0.0, 0.25)
        if on_progress:
            on_progress(Progress("read", len(prompt), len(prompt)))
        return self._logits()

    def decode(self, token: int) -> Tensor:
        """Take a token; a forced end of the reasoning moves on to the scripted answer."""
        self.ids.append(token)
        end = self._engine.tokenizer.added_tokens["</think>"]
        if token == end and end in self._tokens[self._position :]:
            self._position = self._tokens.index(end, self._position)
        self._position += 1
        self._act()
        return self._logits()

    def _act(self) -> None:
        action = self._script.actions.get(self._position) if self._script else None
        if action:
            action()

    def _logits(self) -> Tensor:
        logits = torch.full((self.vocab_size,), -1e9)
        logits[self._tokens[min(self._position, len(self._tokens) - 1)]] = 0.0
        return logits


class FakeEngine:
    """Stands where `engine.engine.Engine` does. `scripts` are used one after the other, `prompts` remembered."""

    def __init__(self, folder: Path, scripts: list[Script], has_media: bool = True) -> None:
        self.folder = folder
        self.config = ModelConfig.from_file(folder / "config.json")
        self.tokenizer = Tokenizer.from_folder(folder)
        self.dtype = torch.bfloat16
        self.scripts = scripts
        self.prompts: list[str] = []
        self.prompt_ids: list[tuple[int, ...]] = []
        self.has_vision = self.has_audio = has_media
        self.notes: tuple[str, ...] = ()
        self.losses: tuple[str, ...] = ()
        self.compute = SimpleNamespace(name="avx512, 2 threads")
        self.mtp: list[object] = []
        self.kv_bytes_per_token = 1000
        self.contents = SimpleNamespace(size_bytes=5_000_000)
        self.media = SimpleNamespace(audio_tokenizer=None)
        self.memory = self.card = self.budget = None
        self.is_closed = False

    def start_sequence(self, max_tokens: int | None = None) -> FakeSequence:
        """Begin a timeline; 4096 tokens unless said otherwise."""
        return FakeSequence(self, max_tokens or 4096)

    def close(self) -> None:
        """Take note."""
        self.is_closed = True


@dataclass
class FakeLoader:
    """Stands where `load_engine` does; `engine` is what was loaded last."""

    scripts: list[Script]
    has_media: bool = True
    engine: FakeEngine | None = None

    def __call__(
        self, folder: Path, *, on_load: Callable[[int, int], None] | None = None, **options: Any
    ) -> FakeEngine:
        self.engine = FakeEngine(folder, self.scripts, self.has_media)
        if on_load:
            on_load(1, 1)
        return self.engine


def scripted(*answers: str | Script, has_media: bool = True) -> FakeLoader:
    """Return a loader whose engine gives these answers, each ended by the stop token unless it is a Script."""
    return FakeLoader([a if isinstance(a, Script) else Script(a + STOP) for a in answers], has_media)

"""Engine: the loaded model and its resources, opened and closed once. Token ids in, logits out; it knows no text.

Timelines are made here (`start_sequence`) and live in sequence.py; `logits` and `draft_logits` are one-shot timelines
of the same kind.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.contents import Contents
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.engine.card import Card
from mimo_cli.engine.compute import Compute, Experts
from mimo_cli.engine.context import DEFAULT_CONTEXT_TOKENS, kv_bytes_per_token
from mimo_cli.engine.drafting import draft_logits
from mimo_cli.engine.embeddings import MediaEncoder
from mimo_cli.engine.expert_memory import ExpertMemory
from mimo_cli.engine.lookahead import OnToken, expect_first
from mimo_cli.engine.memory import available_bytes
from mimo_cli.engine.sequence import Sequence
from mimo_cli.engine.stats import ExpertTraffic
from mimo_cli.errors import CapacityError, UsageError
from mimo_cli.media.prompt import Prompt
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.mtp import MTPModule
from mimo_cli.offload.budget import MemoryBudget
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.units import format_bytes


@dataclass(eq=False)
class Engine:
    """A loaded model and what its checkpoint holds.

    Made by load.load_engine; a context manager. `load_mtp` reads the MTP modules when they are first used.
    `stored_losses` is what the making of a packed store did not keep, `budget` how memory was divided; `memory` keeps
    to it while the model runs (None where none was given, or experts are not read from disk by the kernels). `card` is
    the graphics card that computes, None where the processor does. `on_token` hears of tokens about to be decoded.
    """

    folder: Path
    config: ModelConfig
    compute: Compute
    contents: Contents
    reader: CheckpointReader
    decoder: TextModel
    experts: Experts
    media: MediaEncoder
    load_mtp: Callable[[], list[MTPModule]]
    stored_losses: tuple[str, ...] = ()
    budget: MemoryBudget | None = None
    card: Card | None = None
    memory: ExpertMemory | None = field(init=False, default=None)
    on_token: OnToken | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.experts, ExpertStore) and self.card is None:
            self.on_token = expect_first(self.decoder, self.experts)
        if self.budget is not None and isinstance(self.experts, ExpertStore):
            self.memory = ExpertMemory(self.experts, self.budget, self.config, self.dtype)

    @cached_property
    def mtp(self) -> list[MTPModule]:
        """The MTP modules of the checkpoint, read at the first use (none: an empty list)."""
        return self.load_mtp()

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the activations."""
        return self.compute.dtype

    @property
    def index(self) -> TensorIndex:
        """Which shard holds which tensor."""
        return self.reader.index

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user: what this checkpoint lacks, what had to be assumed to read it, what is slower."""
        notes = (*self.contents.notes, *self.reader.notes, *self.compute.notes(self.experts))
        notes = (*notes, *self.card.notes) if self.card else notes
        if self.budget is None or not self.budget.is_below_cycle:
            return notes
        held, needed = self.budget.slots, min(self.budget.cycle_slots, self.budget.experts)
        return (
            *notes,
            f"memory holds {held:,} experts, a token needs {needed:,}: most are read from disk every time; "
            f"--ram {format_bytes(self.budget.fixed_bytes + needed * self.budget.slot_bytes)} would hold them",
        )

    @property
    def losses(self) -> tuple[str, ...]:
        """Sentences for the user: what is less exact than the release's weights (nothing, unless it was chosen)."""
        on_card = self.card.losses if self.card else ()
        return (*self.stored_losses, *self.compute.losses(self.experts, self.decoder), *on_card)

    @property
    def has_vision(self) -> bool:
        """Tell whether pictures and films can be read."""
        return self.media.vision is not None

    @property
    def has_audio(self) -> bool:
        """Tell whether recordings can be read."""
        return self.media.audio is not None

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes by which one more token enlarges a KV cache."""
        return kv_bytes_per_token(self.config, self.dtype)

    def start_sequence(self, max_tokens: int | None = None) -> Sequence:
        """Return an empty timeline of at most `max_tokens`; by default 32k, less where model or memory hold less.

        Raises UsageError beyond what the model was made for, CapacityError where the KV cache cannot fit in memory.
        """
        limit = self.config.max_position_embeddings
        fitting = (
            available_bytes() // max(self.kv_bytes_per_token, 1) if self.card is None else self.card.context_tokens
        )
        if max_tokens is None:
            max_tokens = max(1, min(DEFAULT_CONTEXT_TOKENS, limit, fitting))
        if not 0 < max_tokens <= limit:
            raise UsageError(f"a context of {max_tokens:,} tokens was asked for, 1 to {limit:,} are possible")
        if max_tokens > fitting and self.card is not None:
            raise CapacityError(
                f"a context of {max_tokens:,} tokens was asked for, the card keeps memory for {fitting:,}",
                hint=f"load with a context of {max_tokens} tokens (--ctx {max_tokens})",
            )
        if max_tokens > fitting:
            raise CapacityError(
                f"the KV cache of {max_tokens:,} tokens needs {format_bytes(max_tokens * self.kv_bytes_per_token)}, "
                f"{format_bytes(available_bytes())} are free",
                hint=f"start with --ctx {fitting // 1024 * 1024 or fitting}",
            )
        return Sequence(
            self.decoder,
            self.config,
            self.media,
            max_tokens=max_tokens,
            kv_dtype=self.dtype,
            expert_traffic=self.expert_traffic,
            memory=self.memory,
            on_token=self.on_token,
            card=self.card,
        )

    def logits(self, ids: Iterable[int], chunk_tokens: int | None = None) -> Tensor:
        """Return the logits [T, V] float32 after every token, read as every prompt is: in chunks, with a KV cache."""
        prompt = Prompt(tuple(ids))
        sequence = self.start_sequence(max(len(prompt), 1))
        with torch.inference_mode():
            return torch.cat([self.decoder.logits(states).cpu() for states in sequence.read(prompt, chunk_tokens)])

    def draft_logits(self, ids: Iterable[int]) -> list[Tensor]:
        """Return the drafts of every MTP module, [T, V] float32 each; see drafting.draft_logits."""
        prompt = Prompt(tuple(ids))
        sequence = self.start_sequence(max(len(prompt), 1))
        return draft_logits(sequence, self.decoder, self.mtp, self.config, prompt)

    def expert_traffic(self) -> ExpertTraffic:
        """Return the experts' hits, misses and bytes read since loading."""
        experts = self.experts
        if not isinstance(experts, ExpertStore):
            return ExpertTraffic(experts.hits, experts.misses, experts.bytes_read)
        counters = experts.counters
        sums = counters.hits, counters.misses, counters.disk_bytes
        card_hits = self.card.experts.counters.hits if self.card is not None else 0
        return ExpertTraffic(*sums, counters.read_s, counters.wait_s, card_hits)

    def drop_experts(self) -> None:
        """Forget the experts held in memory, for a cold measurement."""
        if self.card is not None:
            self.card.clear()
        self.experts.clear()

    def close(self) -> None:
        """Give back experts and mapped files. The engine is of no use afterwards."""
        if self.card is not None:
            self.card.close()
        self.experts.close()
        self.reader.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

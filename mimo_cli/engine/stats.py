"""What one generation cost: tokens, seconds, expert traffic, memory. Numbers only; nobody prints here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Progress:
    """How far a prompt is: `stage` "encode" counts rows of one medium, "read" counts tokens of the prompt."""

    stage: Literal["encode", "read"]
    done_tokens: int
    total_tokens: int
    source: str = ""


OnProgress: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True)
class ExpertTraffic:
    """Experts asked for since some moment: found in RAM, fetched from disk, and the bytes fetched.

    read_s: seconds in which at least one was being fetched; wait_s: seconds in which computing stood still for one;
    card_hits: found on the graphics card, so that RAM was not asked.
    """

    hits: int = 0
    misses: int = 0
    bytes_read: int = 0
    read_s: float = 0.0
    wait_s: float = 0.0
    card_hits: int = 0

    @property
    def asked(self) -> int:
        """Experts that were needed."""
        return self.card_hits + self.hits + self.misses

    @property
    def hit_rate(self) -> float | None:
        """Share found in memory, the card's or RAM, 0 to 1; None where no expert was needed."""
        return (self.card_hits + self.hits) / self.asked if self.asked else None

    def __add__(self, other: "ExpertTraffic") -> "ExpertTraffic":
        return ExpertTraffic(
            self.hits + other.hits,
            self.misses + other.misses,
            self.bytes_read + other.bytes_read,
            self.read_s + other.read_s,
            self.wait_s + other.wait_s,
            self.card_hits + other.card_hits,
        )

    def __sub__(self, earlier: "ExpertTraffic") -> "ExpertTraffic":
        return ExpertTraffic(  # field by field: `dataclasses.astuple` copies deeply, and this is done for every token
            self.hits - earlier.hits,
            self.misses - earlier.misses,
            self.bytes_read - earlier.bytes_read,
            self.read_s - earlier.read_s,
            self.wait_s - earlier.wait_s,
            self.card_hits - earlier.card_hits,
        )


@dataclass
class GenerationStats:
    """Counters of one generation, filled while it runs; whatever is not reached yet is 0.

    prompt_tokens    of the whole prompt, cached_tokens of them already in the KV cache
    encode_s         spent in decoders and towers, prefill_s in the network reading the prompt
    first_token_s    from the request to the first token
    decode_s         from the first token to the last, without the time the caller kept the tokens
    kv_bytes         the sequence's KV cache holds; context_tokens of context_limit are taken
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    first_token_s: float = 0.0
    decode_s: float = 0.0
    prefill_experts: ExpertTraffic = field(default_factory=ExpertTraffic)
    decode_experts: ExpertTraffic = field(default_factory=ExpertTraffic)
    peak_rss_bytes: int = 0
    kv_bytes: int = 0
    context_tokens: int = 0
    context_limit: int = 0
    seed: int | None = None

    @property
    def prefill_tps(self) -> float:
        """Prompt tokens read per second, without those cached."""
        return (self.prompt_tokens - self.cached_tokens) / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tps(self) -> float:
        """Tokens per second after the first one."""
        return (self.generated_tokens - 1) / self.decode_s if self.decode_s and self.generated_tokens > 1 else 0.0

    @property
    def bytes_per_token(self) -> float:
        """Expert bytes fetched per decoded token."""
        decoded = self.generated_tokens - 1
        return self.decode_experts.bytes_read / decoded if decoded > 0 else 0.0

"""What an answer cost, as one line for people and as fields for programs."""

from typing import Any

from mimo_cli.engine.stats import ExpertTraffic, GenerationStats
from mimo_cli.units import format_bytes, format_count, format_duration


def numbers_line(stats: GenerationStats, think_tokens: int) -> str:
    """Render `prompt 1,204 tok (cached 1,100) 3.2 s 33 t/s | think 312 | answer 88 tok 9.4 t/s | first 3.9 s | ...`."""
    cached = f" (cached {format_count(stats.cached_tokens)})" if stats.cached_tokens else ""
    parts = [f"prompt {format_count(stats.prompt_tokens)} tok{cached} {format_duration(stats.prefill_s)}"]
    if stats.prefill_tps:
        parts[0] += f" {format_rate(stats.prefill_tps)}"
    if stats.encode_s >= 0.1:
        parts.append(f"media {format_duration(stats.encode_s)}")
    if think_tokens:
        parts.append(f"think {format_count(think_tokens)}")
    answer = f"answer {format_count(stats.generated_tokens - think_tokens)} tok"
    parts.append(f"{answer} {format_rate(stats.decode_tps)}" if stats.decode_tps else answer)
    parts.append(f"first {format_duration(stats.first_token_s)}")
    if stats.decode_experts.asked:
        parts.append(f"hit {_tier_shares(stats.decode_experts)}")
    if stats.decode_experts.bytes_read:
        parts.append(f"read {format_bytes(stats.bytes_per_token)}/tok")
    parts.append(f"ctx {context_share(stats.context_tokens, stats.context_limit)}")
    return " | ".join(parts)


def _tier_shares(traffic: ExpertTraffic) -> str:
    """Render where experts were found: `GPU 61 % RAM 37 % disk 2 %`, without the tiers that had none."""
    tiers = {"GPU": traffic.card_hits, "RAM": traffic.hits, "disk": traffic.misses}
    return " ".join(f"{name} {100 * count / traffic.asked:.0f} %" for name, count in tiers.items() if count)


def format_rate(tokens_per_s: float) -> str:
    """Render tokens per second with two digits or more: `9.4 t/s`, `310 t/s`."""
    return f"{tokens_per_s:.0f} t/s" if tokens_per_s >= 20 else f"{tokens_per_s:.2g} t/s"


def format_tokens(count: int) -> str:
    """Render a count of context tokens in the field's k of 1024: `480`, `3.1k`, `32k`, `1M`."""
    for unit, factor in (("M", 1024 * 1024), ("k", 1024)):
        if count >= factor:
            value = count / factor
            return f"{value:.0f}{unit}" if value >= 10 or value == int(value) else f"{value:.1f}{unit}"
    return str(count)


def context_share(used_tokens: int, limit_tokens: int) -> str:
    """Render `3.1k/32k`."""
    return f"{format_tokens(used_tokens)}/{format_tokens(limit_tokens)}"


def usage_fields(stats: GenerationStats, think_tokens: int) -> dict[str, int]:
    """Return the token counts under their names in the OpenAI interface, reasoning and cached tokens included."""
    return {
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "completion_tokens": stats.generated_tokens,
        "reasoning_tokens": think_tokens,
        "total_tokens": stats.prompt_tokens + stats.generated_tokens,
    }


def timing_fields(stats: GenerationStats, load_s: float) -> dict[str, float | None]:
    """Return seconds and tokens per second; None for a rate that nothing was measured for."""
    return {
        "load_s": round(load_s, 4),
        "media_s": round(stats.encode_s, 4),
        "prompt_s": round(stats.prefill_s, 4),
        "prompt_tps": round(stats.prefill_tps, 3) or None,
        "first_token_s": round(stats.first_token_s, 4),
        "gen_s": round(stats.decode_s, 4),
        "gen_tps": round(stats.decode_tps, 3) or None,
    }


def memory_fields(stats: GenerationStats) -> dict[str, Any]:
    """Return what the answer held and moved in memory."""
    experts = stats.decode_experts
    return {
        "kv_bytes": stats.kv_bytes,
        "context_tokens": stats.context_tokens,
        "context_limit": stats.context_limit,
        "peak_rss_bytes": stats.peak_rss_bytes,
        "expert_hit_rate": experts.hit_rate,
        "expert_card_hit_rate": experts.card_hits / experts.asked if experts.asked else None,
        "expert_bytes_per_token": round(stats.bytes_per_token),
    }

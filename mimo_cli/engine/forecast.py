"""From a measured slice to the whole model: what a release would do if every one of its layers took as long.

Arithmetic only, and an estimate only: it supposes that all weights are in memory, and that a layer's time does not
depend on how many there are.
"""

from dataclasses import dataclass

from mimo_cli.checkpoint.config import ModelConfig


@dataclass(frozen=True)
class LayerTimes:
    """Measured seconds of one pass: of each layer of the slice, and of everything that is not a layer."""

    layer_s: tuple[float, ...]
    rest_s: float


@dataclass(frozen=True)
class Forecast:
    """An estimate of a whole release behind `context_tokens`. None where the slice lacks a kind of layer."""

    context_tokens: int
    layers: int
    global_layers: int
    sliding_layers: int
    prefill_tps: float | None
    decode_tps: float | None


def extrapolate(measured: ModelConfig, release: ModelConfig, times: LayerTimes) -> float | None:
    """Return the seconds of one pass through all layers of the release; None where the slice lacks a kind of layer.

    A layer counts as the mean of the measured layers of its kind: global or sliding, with experts or dense.
    """
    by_kind: dict[tuple[bool, bool], list[float]] = {}
    for layer, seconds in enumerate(times.layer_s):
        by_kind.setdefault(_kind(measured, layer), []).append(seconds)
    kinds = [_kind(release, layer) for layer in range(release.num_hidden_layers)]
    if not by_kind.keys() >= set(kinds):
        return None
    means = {kind: sum(seconds) / len(seconds) for kind, seconds in by_kind.items()}
    return times.rest_s + sum(means[kind] for kind in kinds)


def forecast(
    measured: ModelConfig,
    release: ModelConfig,
    context_tokens: int,
    prefill: tuple[int, LayerTimes] | None,
    decode: LayerTimes | None,
) -> Forecast:
    """Estimate a release: `decode` is the mean pass of a decoded token, `prefill` a prompt's tokens and its passes."""
    sliding = sum(release.is_sliding(layer) for layer in range(release.num_hidden_layers))
    token_s = extrapolate(measured, release, decode) if decode else None
    prompt_s = extrapolate(measured, release, prefill[1]) if prefill else None
    return Forecast(
        context_tokens=context_tokens,
        layers=release.num_hidden_layers,
        global_layers=release.num_hidden_layers - sliding,
        sliding_layers=sliding,
        prefill_tps=prefill[0] / prompt_s if prefill and prompt_s else None,
        decode_tps=1 / token_s if token_s else None,
    )


def _kind(config: ModelConfig, layer: int) -> tuple[bool, bool]:
    return config.is_sliding(layer), config.is_moe(layer)

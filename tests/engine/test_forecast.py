"""The estimate of a whole release is plain arithmetic over measured layers."""

import pytest

from mimo_cli.checkpoint.release_shapes import release_config, slice_config
from mimo_cli.engine.forecast import Forecast, LayerTimes, extrapolate, forecast

RELEASE = release_config("v2.5")


def test_every_layer_counts_as_the_measured_ones_of_its_kind() -> None:
    times = LayerTimes(layer_s=(0.010, 0.003, 0.004), rest_s=0.020)  # global dense, sliding moe, global moe
    seconds = extrapolate(slice_config(RELEASE, 3), RELEASE, times)
    assert seconds == pytest.approx(0.010 + 39 * 0.003 + 8 * 0.004 + 0.020)


def test_several_layers_of_a_kind_are_averaged() -> None:
    times = LayerTimes((0.010, 0.002, 0.003, 0.004, 0.006), 0.0)  # three sliding ones, then a global one
    assert extrapolate(slice_config(RELEASE, 5), RELEASE, times) == pytest.approx(0.010 + 39 * 0.003 + 8 * 0.006)


def test_a_whole_release_is_its_own_estimate() -> None:
    times = LayerTimes(tuple(0.001 * i for i in range(48)), 0.5)
    assert extrapolate(RELEASE, RELEASE, times) == pytest.approx(0.5 + sum(times.layer_s))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_slice_that_lacks_a_kind_of_layer_gives_no_estimate(layers: int) -> None:
    assert extrapolate(slice_config(RELEASE, layers), RELEASE, LayerTimes((0.01,) * layers, 0.0)) is None


def test_rates_follow_from_the_passes() -> None:
    decode = LayerTimes((0.010, 0.003, 0.004), 0.021)
    prefill = LayerTimes((1.0, 2.0, 1.5), 0.0)
    found = forecast(slice_config(RELEASE, 3), RELEASE, 4096, (512, prefill), decode)
    assert found == Forecast(
        context_tokens=4096,
        layers=48,
        global_layers=9,
        sliding_layers=39,
        prefill_tps=pytest.approx(512 / (1.0 + 39 * 2.0 + 8 * 1.5)),
        decode_tps=pytest.approx(1 / 0.180),
    )


def test_what_was_not_measured_is_not_estimated() -> None:
    found = forecast(slice_config(RELEASE, 3), RELEASE, 512, None, None)
    assert found.prefill_tps is None and found.decode_tps is None

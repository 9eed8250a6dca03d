import time

import pytest

from mimo_cli.chat.jinja_sandbox import RenderFailure
from mimo_cli.chat.template_child import RenderLimits, render_in_child

SHORT = RenderLimits(seconds=1, memory_bytes=300_000_000, output_chars=10_000)


def failure(template: str) -> RenderFailure:
    with pytest.raises(RenderFailure) as caught:
        render_in_child(template, {"messages": []}, SHORT)
    return caught.value


def test_text_goes_through_the_child_unchanged() -> None:
    values = {"a": "中 é \u2028 🐱\x00 \ud800 \\n", "b": [1, 1e21, None, True]}
    assert render_in_child("{{ a }}|{{ b }}", values) == values["a"] + "|[1, 1e+21, None, True]"


def test_an_endless_loop_is_stopped() -> None:
    start = time.monotonic()
    found = failure("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    assert found.kind == "limit" and "1 s of work" in str(found)
    # One second of processor time; a loaded machine may take several times as long.
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    "template",
    [
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' | center(2000000000) }}",
        "{{ [1] * 999999999 }}",
    ],
)
def test_a_memory_bomb_is_stopped(template: str) -> None:
    assert failure(template).kind == "limit"


def test_endless_output_is_stopped() -> None:
    found = failure("{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}")
    assert found.kind == "limit" and "wrote more than" in str(found)


def test_a_huge_power_is_stopped() -> None:
    assert failure("{{ 9 ** (9 ** 9) }}").kind == "limit"


def test_failures_of_the_child_keep_their_kind() -> None:
    assert failure("{{ messages.__class__.__mro__ }}").kind == "forbidden"
    assert failure("{{ raise_exception('no') }}").kind == "refused"
    assert failure("{{ nothing.at.all }}").kind == "failed"


def test_longer_input_allows_longer_output() -> None:
    assert RenderLimits().max_chars(10) == 1_000_040
    text = "x" * 30_000
    assert render_in_child("{{ t }}{{ t }}", {"t": text}, SHORT) == text * 2

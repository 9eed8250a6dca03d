import re
from typing import Any

import pytest

from mimo_cli.chat.jinja_sandbox import RenderFailure, render


def rendered(template: str, **variables: Any) -> str:
    return render(template, variables, max_chars=1000)


def failure(template: str, **variables: Any) -> RenderFailure:
    with pytest.raises(RenderFailure) as caught:
        rendered(template, **variables)
    return caught.value


def test_blocks_leave_no_newline_and_no_indentation() -> None:
    assert rendered("a\n  {% if true %}\nb\n  {% endif %}\nc\n") == "a\nb\nc"


def test_loops_may_be_left_early() -> None:
    assert rendered("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"


def test_tojson_escapes_neither_html_nor_letters() -> None:
    value = {"a": "<b> & 'c' 中", "n": [1, None]}
    assert rendered("{{ v | tojson }}", v=value) == '{"a": "<b> & \'c\' 中", "n": [1, null]}'
    assert rendered("{{ v | tojson(indent=1) }}", v=[1]) == "[\n 1\n]"


def test_the_date_is_at_hand() -> None:
    assert re.fullmatch(r"\d{4}-\d\d", rendered("{{ strftime_now('%Y-%m') }}"))


def test_generation_blocks_print_their_body() -> None:
    assert rendered("a{% generation %}b{{ x }}{% endgeneration %}c", x=1) == "ab1c"


@pytest.mark.parametrize(
    "template",
    [
        "{{ x.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ x.append(1) }}",
        "{{ '{0.__class__.__mro__}'.format(x) }}",
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    ],
)
def test_the_sandbox_stops_a_way_out(template: str) -> None:
    assert failure(template, x=[1]).kind == "forbidden"


@pytest.mark.parametrize("template", ["{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{{ open('x') }}"])
def test_there_are_no_files_and_no_modules(template: str) -> None:
    assert failure(template).kind == "failed"


def test_output_past_the_limit_is_a_failure() -> None:
    assert rendered("{{ 'x' * 1000 }}") == "x" * 1000
    found = failure("{% for i in range(2) %}{{ 'x' * 501 }}{% endfor %}")
    assert found.kind == "limit" and "1,000" in str(found)


def test_a_template_says_what_it_refuses() -> None:
    found = failure("{{ raise_exception('roles must alternate') }}")
    assert (found.kind, str(found)) == ("refused", "roles must alternate")


def test_errors_tell_their_place_or_kind() -> None:
    assert failure("\n{% for %}").kind == "syntax" and "line 2" in str(failure("\n{% for %}"))
    assert "UndefinedError" in str(failure("{{ a.b.c }}"))
    assert failure("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").kind == "limit"

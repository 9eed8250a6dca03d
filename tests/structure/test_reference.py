"""docs/reference/ is what the program says of itself."""

import pytest

from docs.write_reference import REFERENCE, pages


@pytest.mark.parametrize("name", ["commands.md", "python.md"])
def test_the_reference_is_up_to_date(name: str) -> None:
    stored = (REFERENCE / name).read_text("utf-8")
    assert stored == pages()[name], "run `make docs`"


def test_no_page_is_left_over() -> None:
    assert {path.name for path in REFERENCE.iterdir()} == set(pages())

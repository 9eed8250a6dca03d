import pytest

from mimo_cli.chat.tool_block import (
    BlockScanner,
    Extent,
    RawCall,
    find_block,
    parse_block,
    partial_tag_length,
)


def scan(text: str, size: int) -> tuple[str, bool] | None:
    """Feed a scanner in chunks; return the settled text and whether it is a block."""
    scanner = BlockScanner()
    first = max(size, len("<tool_call>"))
    for chunk in (text[:first], *(text[i : i + size] for i in range(first, len(text), size))):
        extent = scanner.feed(chunk)
        if extent is not None:
            return scanner.text[: extent.stop], extent.is_block
    return None


BLOCK = "<tool_call><function=f><parameter=a>x</parameter></function></tool_call>"
QUOTED = "<tool_call><function=f><parameter=a>print('</tool_call>')</parameter></function></tool_call>"
UNCLOSED = "<tool_call><function=f><parameter=a>oops</function></tool_call>"


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        (BLOCK, (BLOCK, True)),
        (BLOCK + " more", (BLOCK, True)),
        (QUOTED, (QUOTED, True)),
        (UNCLOSED + BLOCK, (UNCLOSED, True)),
        ("<tool_call> see " + BLOCK, ("<tool_call> see ", False)),
        ("<tool_call><parameter=a<b></tool_call>", ("<tool_call><parameter=a<b></tool_call>", True)),
        (UNCLOSED, None),
        ("<tool_call><function=f>", None),
        ("<tool_call><parameter=a", None),
    ],
)
def test_the_end_of_a_block_does_not_depend_on_chunks(text: str, settled: tuple[str, bool] | None) -> None:
    assert {scan(text, size) for size in range(1, len(text) + 1)} == {settled}


def test_a_call_quoted_in_an_unclosed_value_is_not_a_block_of_its_own() -> None:
    text = "<tool_call><function=write><parameter=text>like <tool_call><function=rm></function></tool_call>"
    assert scan(text, 1) == (text, True)
    assert parse_block(text[len("<tool_call>") : -len("</tool_call>")]) is None


def test_a_value_that_never_closes_ends_its_block_at_the_first_end_tag() -> None:
    scanner = BlockScanner()
    assert scanner.feed(UNCLOSED + "x") is None and scanner.in_value
    assert scanner.unreadable() == Extent(len(UNCLOSED), True)
    scanner = BlockScanner()
    scanner.feed("<tool_call>x")
    assert scanner.unreadable() is None and not scanner.in_value


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("\n<function=f>\n</function>\n", RawCall("f", {})),
        ("<function= f ><parameter= a >x</parameter></function>", RawCall("f", {"a": "x"})),
        ("<function=f>\n<parameter=a> x\n</parameter>\n</function>", RawCall("f", {"a": " x\n"})),
        ("<function=f><parameter=a>1</parameter><parameter=a>2</parameter></function>", RawCall("f", {"a": "2"})),
        ("<function=f><parameter=a><b></parameter></function>", RawCall("f", {"a": "<b>"})),
        ("", None),
        ("nonsense", None),
        ("<function=>\n</function>", None),
        ("<function=f>", None),
        ("<function=f></function>x", None),
        ("x<function=f></function>", None),
        ("<function=f>x</function>", None),
        ("<function=f><parameter=a>x</function>", None),
        ("<function=f></function><function=g></function>", None),
    ],
)
def test_a_block_is_exactly_one_function(text: str, call: RawCall | None) -> None:
    assert parse_block(text) == call


def test_the_first_complete_block_is_found() -> None:
    assert find_block("a" + BLOCK + BLOCK) == 1
    assert find_block("<tool_call> x " + BLOCK) == len("<tool_call> x ")
    assert find_block("a <tool_call> b") is None and find_block("") is None


def test_the_beginning_of_a_tag_is_measured_at_the_end_of_text() -> None:
    tags = ("</think>", "<tool_call>")
    lengths = {"": 0, "x": 0, "x<": 1, "x</": 2, "x<tool_cal": 9, "<<": 1, "x<tool_call>": 0, "</thin </t": 3}
    assert {text: partial_tag_length(text, tags) for text in lengths} == lengths


def test_a_long_value_in_small_chunks_is_read_in_reasonable_time() -> None:
    text = BLOCK.replace("x<", "y" * 200_000 + "<")
    assert scan(text, 4) == (text, True)

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from mimo_cli.commands.command import FLAG_ORDER, build_command, flatten_options, run_command
from mimo_cli.errors import UsageError


@dataclass(frozen=True)
class Size:
    """A group of options."""

    width: Annotated[int, typer.Option("-w", "--width", metavar="N", help="Columns.")] = 3
    max_height: Annotated[int | None, typer.Option("--max-height", hidden=True, help="Lines.")] = None


def draw(
    size: Size,
    call: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    bold: Annotated[bool, typer.Option("--bold/--no-bold", help="Thick.")] = False,
    tag: Annotated[list[str] | None, typer.Option("--tag")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> Any:
    """Draw a box.

    It has a name.
    """
    return size, name, bold, tag or [], as_json, call.meta[FLAG_ORDER]


COMMAND = build_command("draw", draw, ("mimo draw box",))


def run(*args: str, **defaults: Any) -> Any:
    return run_command(COMMAND, "mimo draw", list(args), defaults)


def test_a_group_arrives_as_its_dataclass() -> None:
    assert run("box")[:5] == (Size(), "box", False, [], False)
    assert run("box", "-w", "7", "--max-height", "2", "--bold", "--json")[:5] == (Size(7, 2), "box", True, [], True)


def test_the_order_of_flags_is_remembered() -> None:
    order = run("--tag", "a", "--bold", "box", "--tag", "b")[5]
    assert [name for name in order if name in ("tag", "bold")] == ["tag", "bold", "tag"]


def test_every_flag_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMO_MAX_HEIGHT", "9")
    monkeypatch.setenv("MIMO_JSON", "1")
    monkeypatch.setenv("MIMO_WIDTH", "")
    assert run("box")[0] == Size(3, 9)
    assert run("box")[4] is True


def test_flag_wins_over_variable_and_variable_over_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("box", width=5)[0].width == 5
    monkeypatch.setenv("MIMO_WIDTH", "6")
    assert run("box", width=5)[0].width == 6
    assert run("box", "-w", "7", width=5)[0].width == 7


def test_settings_are_read_like_flags() -> None:
    read = run("box", max_height="4", tag=["a", 5], json=True, unknown=1)
    assert read[:5] == (Size(3, 4), "box", False, ["a", "5"], True)
    with pytest.raises(UsageError, match="'--width'"):
        run("box", width="wide")


@pytest.mark.parametrize("args", [("box", "--wdth", "3"), (), ("box", "-w", "x"), ("box", "more"), ("box", "-w")])
def test_wrong_command_lines_are_usage_errors_with_a_hint(args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        run(*args)
    assert caught.value.hint == "mimo draw --help"
    assert "\n" not in str(caught.value)


def test_help_shows_the_first_paragraph_and_the_plain_options() -> None:
    text = COMMAND.help_text("mimo draw", everything=False)
    assert text.startswith("usage: mimo draw [OPTIONS] NAME\n\nDraw a box.\n\n")
    assert "  -w, --width N               Columns. [3]\n" in text
    assert "  --bold/--no-bold            Thick.\n" in text
    assert "max-height" not in text and "It has a name" not in text
    assert text.endswith("examples:\n  mimo draw box\nall options: mimo draw --help-all")


def test_help_all_shows_everything() -> None:
    text = COMMAND.help_text("mimo draw", everything=True)
    assert "It has a name." in text and "--max-height" in text and "--help-all" not in text


def test_help_prints_and_returns_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert capsys.readouterr().out.startswith("usage: mimo draw")


def test_a_function_without_groups_keeps_its_parameters() -> None:
    def plain(a: int = 1, b: str = "x") -> None:
        """Plain."""

    flat = flatten_options(plain)
    assert list(flat.__annotations__) == ["a", "b"] and flat.__doc__ == "Plain."


def test_a_wrong_value_that_nobody_typed_names_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"max_height": Path("mimo.toml")}
    with pytest.raises(UsageError, match=r"'--max-height': .* \(from `max-height` in mimo\.toml\)") as caught:
        run_command(COMMAND, "mimo draw", ["box"], {"max_height": "tall"}, files)
    assert caught.value.hint == "correct or remove `max-height` in mimo.toml"
    monkeypatch.setenv("MIMO_MAX_HEIGHT", "high")
    with pytest.raises(UsageError, match=r"\(from MIMO_MAX_HEIGHT\)") as caught:
        run_command(COMMAND, "mimo draw", ["box"], {"max_height": "tall"}, files)
    assert caught.value.hint == "correct or remove MIMO_MAX_HEIGHT"
    with pytest.raises(UsageError) as caught:
        run_command(COMMAND, "mimo draw", ["box", "--max-height", "x"], {"max_height": "tall"}, files)
    assert "from" not in str(caught.value) and caught.value.hint == "mimo draw --help"

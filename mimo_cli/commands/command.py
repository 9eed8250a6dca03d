"""What every command has in common: grouped options, variables for flags, the order of flags, help on one screen.

A command is a plain function. Parameters annotated with a dataclass stand for a group of options shared by several
commands: typer sees the fields, the function gets the dataclass. Options marked `hidden` appear in `--help-all` only.
"""

import inspect
import os
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand

from mimo_cli.errors import UsageError

FLAG_ORDER = "mimo.flag_order"
"""Key of `ctx.meta`: names of the options given on the command line, in order, repeated ones repeatedly."""

_HELP_WIDTH = 100
_FLAG_COLUMN = 30


class MimoCommand(TyperCommand):
    """A command whose options are also `MIMO_FLAG_NAME` variables and whose help fits one screen."""

    examples: Sequence[str] = ()

    def add_variables(self) -> None:
        """Give every option without a variable of its own the variable named after its longest flag."""
        for option in self.options():
            if option.envvar is None and long_flag(option).startswith("--"):
                option.envvar = "MIMO_" + setting_name(option).upper()
                option.show_envvar = False  # its name follows from the flag's; it would only lengthen messages

    def options(self) -> list[Any]:
        """Return the options (not the arguments), as the parser knows them."""
        return [param for param in self.params if param.param_type_name == "option"]

    def option_names(self) -> list[str]:
        """Return the names of the options as settings files spell them, with underscores."""
        return [setting_name(option) for option in self.options()]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as usual, and remember in which order the flags were given."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[FLAG_ORDER] = [param.name for param in order]
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """Return the one-screen help."""
        return self.help_text(ctx.command_path, everything=False)

    def help_text(self, path: str, everything: bool) -> str:
        """Return usage, purpose, options and examples; with `everything` also the options for special cases."""
        width = max(60, min(shutil.get_terminal_size().columns, _HELP_WIDTH))
        arguments = [param for param in self.params if param.param_type_name == "argument"]
        usage = " ".join([path, "[OPTIONS]", *(_argument_usage(param) for param in arguments)])
        lines = [f"usage: {usage}", ""]
        purpose = inspect.cleandoc(self.help or "").split("\n\n")
        for paragraph in purpose if everything else purpose[:1]:
            lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
        shown = [option for option in self.options() if everything or not option.hidden]
        for panel in dict.fromkeys(option.rich_help_panel or "options" for option in shown):
            lines += [f"{panel}:"] if everything else []
            for option in shown:
                if (option.rich_help_panel or "options") == panel:
                    lines += _option_lines(option, width)
            lines += [""] if everything else []
        lines += [] if everything else [""]
        lines += ["examples:", *(f"  {example}" for example in self.examples)]
        if not everything and any(option.hidden for option in self.options()):
            lines += [f"all options: {path} --help-all"]
        return "\n".join(lines)


def was_typed(call: typer.Context, name: str) -> bool:
    """Tell whether a parameter stands on the command line, and not only in a variable or a settings file."""
    return name in call.meta.get(FLAG_ORDER, [])


def long_flag(option: Any) -> str:
    """Return the long flag of an option: `--max-tokens`."""
    return max((flag for flag in option.opts if flag.startswith("--")), key=len, default=option.opts[0])


def setting_name(option: Any) -> str:
    """Return the name of an option in settings files: `max_tokens`. (A parameter may be called otherwise.)"""
    return long_flag(option).removeprefix("--").replace("-", "_")


def _argument_usage(param: Any) -> str:
    name = param.metavar or param.name.upper()
    return name if param.required else f"[{name}]"


def _option_lines(option: Any, width: int) -> list[str]:
    flags = sorted(option.opts, key=len)
    if option.secondary_opts:
        flags = [f"{flags[-1]}/{option.secondary_opts[0]}"]
    left = "  " + ", ".join(flags)
    if not option.is_flag:
        left += f" {option.metavar or 'VALUE'}"
    text = (option.help or "").strip()
    if not option.is_flag and option.default not in (None, "", (), []):
        text += f" [{option.default}]"
    wrapped = textwrap.wrap(text, width - _FLAG_COLUMN) or [""]
    if len(left) > _FLAG_COLUMN - 2:
        first = [left] if len(left) + 2 + len(text) > width else []
        if not first:
            return [f"{left}  {text}"]
        return first + [" " * _FLAG_COLUMN + line for line in wrapped]
    return [left.ljust(_FLAG_COLUMN) + wrapped[0], *(" " * _FLAG_COLUMN + line for line in wrapped[1:])]


@dataclass(frozen=True)
class _Group:
    parameter: str
    kind: type

    def build(self, values: dict[str, Any]) -> Any:
        return self.kind(**{field.name: values.pop(field.name) for field in fields(self.kind)})


def flatten_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as typer should see it: dataclass parameters replaced by one parameter for each field."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: list[_Group] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if not is_dataclass(hints[name]):
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=kind, annotation=hints[name]))
            continue
        groups.append(_Group(name, hints[name]))
        group_hints = get_type_hints(hints[name], include_extras=True)
        for field in fields(hints[name]):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            parameters.append(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=group_hints[field.name]
                )
            )

    def call(**values: Any) -> Any:
        grouped = {group.parameter: group.build(values) for group in groups}
        return function(**values, **grouped)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__doc__ = function.__doc__
    call.__name__ = function.__name__
    return call


def build_command(name: str, function: Callable[..., Any], examples: Sequence[str]) -> MimoCommand:
    """Make the typer command of a function; its docstring is the help, its first paragraph the one-screen help."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, cls=MimoCommand, context_settings={"help_option_names": ["-h", "--help"]})(
        flatten_options(function)
    )
    command = typer.main.get_command(app)
    if not isinstance(command, MimoCommand):
        raise TypeError(f"typer built a {type(command).__name__} for `{name}`")
    command.examples = examples
    command.add_variables()
    return command


def run_command(
    command: MimoCommand,
    path: str,
    args: list[str],
    defaults: Mapping[str, Any],
    files: Mapping[str, Path] | None = None,
) -> Any:
    """Parse and run one command; `defaults` are values of settings files by name, `files` where they come from.

    Returns what the function returns. Raises UsageError for a wrong command line, and whatever the function raises.
    """
    parameters = {setting_name(option): option.name for option in command.options()}
    usable = {parameters[name]: _as_typed(value) for name, value in defaults.items() if name in parameters}
    try:
        with command.make_context(path, args, default_map=usable) as ctx:
            return command.invoke(ctx)
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as err:
        # The parser's own errors have no public base class in every supported version of typer; this method marks them.
        if not hasattr(err, "format_message"):
            raise
        message = err.format_message().rstrip(".")
        message = message[:1].lower() + message[1:]
        origin = _origin(err, files or {})
        if origin is not None:
            raise UsageError(f"{message} (from {origin})", hint=f"correct or remove {origin}") from err
        raise UsageError(message, hint=f"{path} --help") from err


def _origin(err: Any, files: Mapping[str, Path]) -> str | None:
    """Name the variable or the settings file that the refused value of an option stands in; None for a typed one."""
    option, call = getattr(err, "param", None), getattr(err, "ctx", None)
    if option is None or call is None or option.param_type_name != "option" or was_typed(call, option.name):
        return None
    if isinstance(option.envvar, str) and os.environ.get(option.envvar):
        return option.envvar
    file = files.get(setting_name(option))
    return None if file is None else f"`{setting_name(option).replace('_', '-')}` in {file}"


def _as_typed(value: Any) -> Any:
    """Return a settings value as it would stand on a command line, so that one parser reads both."""
    if isinstance(value, bool):
        return value
    return [_as_typed(item) for item in value] if isinstance(value, list) else str(value)

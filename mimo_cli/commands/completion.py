"""`mimo completion SHELL`: prints a script that completes commands, flags and file names; installs nothing.

The scripts are static text: pressing Tab never starts Python.
"""

from enum import StrEnum
from typing import Annotated

import typer

from mimo_cli.commands import registry
from mimo_cli.commands.options import GeneralOptions

EXAMPLES = (
    "source <(mimo completion bash)",
    'mimo completion zsh > "${fpath[1]}/_mimo"',
    "mimo completion fish > ~/.config/fish/completions/mimo.fish",
)


class Shell(StrEnum):
    """A shell that a script can be made for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    general: GeneralOptions, shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")]
) -> None:
    """Print the completion script of a shell. Nothing is installed: your shell reads it from where you put it."""
    writers = {Shell.bash: bash_script, Shell.zsh: zsh_script, Shell.fish: fish_script}
    general.terminal().write(writers[shell]())


def flags(name: str) -> list[tuple[str, str]]:
    """Return (flag, help) for every flag of a command."""
    found = [("--help", "show the help")]
    for option in registry.load_command(name).options():
        found += [(flag, option.help or "") for flag in [*option.opts, *option.secondary_opts]]
    return found


def bash_script() -> str:
    """Return the script for bash."""
    cases = "\n".join(
        f'    {entry.name}) flags="{" ".join(flag for flag, _ in flags(entry.name))}" ;;' for entry in registry.ENTRIES
    )
    names = " ".join(registry.COMMANDS)
    return f"""# bash completion of mimo
_mimo() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" command="" flags="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case " {names} " in *" ${{COMP_WORDS[i]}} "*) command="${{COMP_WORDS[i]}}"; break ;; esac
  done
  case "${{command:-chat}}" in
{cases}
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  elif [[ -z $command && COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "{names}" -- "$word"))
  elif [[ $command == completion ]]; then
    COMPREPLY=($(compgen -W "bash zsh fish" -- "$word"))
  else
    compopt -o filenames 2> /dev/null
    local IFS=$'\\n'
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -F _mimo mimo
"""


def zsh_script() -> str:
    """Return the script for zsh."""
    names = "\n".join(f"    '{entry.name}:{_single(entry.summary)}'" for entry in registry.ENTRIES)
    cases = "\n".join(
        f"    {entry.name}) flags=({' '.join(_zsh_flag(flag, text) for flag, text in flags(entry.name))}) ;;"
        for entry in registry.ENTRIES
    )
    return f"""#compdef mimo
_mimo() {{
  local -a commands flags
  commands=(
{names}
  )
  case "${{words[2]}}" in
{cases}
  esac
  if [[ ${{words[CURRENT]}} == -* ]]; then
    _describe flag flags
  elif (( CURRENT == 2 )); then
    _describe command commands
  elif [[ ${{words[2]}} == completion ]]; then
    compadd bash zsh fish
  else
    _files
  fi
}}
if [[ ${{funcstack[1]}} == _mimo ]]; then _mimo "$@"; else compdef _mimo mimo; fi
"""


def fish_script() -> str:
    """Return the script for fish."""
    lines = ["# fish completion of mimo", f"set -l mimo_commands {' '.join(registry.COMMANDS)}"]
    for entry in registry.ENTRIES:
        condition = f"__fish_use_subcommand; and not __fish_seen_subcommand_from {entry.name}"
        lines.append(f"complete -c mimo -n '{condition}' -a {entry.name} -d '{_single(entry.summary)}'")
        for flag, text in flags(entry.name):
            kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            seen = f"__fish_seen_subcommand_from {entry.name}"
            lines.append(f"complete -c mimo -n '{seen}' {kind} -d '{_single(text)}'")
    lines.append("complete -c mimo -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'")
    return "\n".join(lines) + "\n"


def _zsh_flag(flag: str, text: str) -> str:
    return "'" + flag + (":" + _single(text) if text else "") + "'"


def _single(text: str) -> str:
    return text.replace("'", "").replace(":", ";").replace("\n", " ")

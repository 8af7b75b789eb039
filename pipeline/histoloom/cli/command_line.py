"""docs/reference/command-line.md, from the commands as click knows them. Written by `python -m histoloom.cli.command_line`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from histoloom.cli.main import cli
from histoloom.exit_codes import EXIT_CODES

_HEAD = """\
# Command line

The `histoloom` command makes, checks and runs a study. It also makes tiles and predictions without one.

{commands}
`histoloom COMMAND --help` says the same as this page, which is written by `python -m histoloom.cli.command_line`.

Results of `status`, `validate`, `plan`, `diff`, `doctor`, `clean`, `params` and `stages` go to the standard output. Progress, messages and errors go to the
standard error. With `--json`, the standard output holds JSON alone. Errors are still words and an exit code.

## Exit codes

"""
_AFTER_CODES = """
`dvc repro` has exit codes of its own. Code 255 means that a stage failed: its message stands above. A process that is ended by signal N returns 128 + N, such as 137
after `kill -9`. The next run goes on from what was committed.

## Completion

With one line in its start file, the shell completes commands, options, stages, recipes and systems.

| shell | file | line |
|---|---|---|
| bash 4.4 or newer | `~/.bashrc` | `eval "$(_HISTOLOOM_COMPLETE=bash_source histoloom)"` |
| zsh | `~/.zshrc` | `eval "$(_HISTOLOOM_COMPLETE=zsh_source histoloom)"` |
| fish | `~/.config/fish/completions/histoloom.fish` | `_HISTOLOOM_COMPLETE=fish_source histoloom \\| source` |

## Commands
"""


def page() -> str:
    """Markdown: exit codes, completion, and a section a command with its arguments and options."""
    codes = ["| code | meaning |", "|---|---|", *(f"| {code} | {words} |" for code, words in EXIT_CODES.items())]
    head = _HEAD.format(
        commands="\n".join(["| command | what it does |", "|---|---|", *_summaries(cli, "histoloom"), ""])
    )
    return head + "\n".join(codes) + "\n" + _AFTER_CODES + "\n".join(_of_group(cli, "histoloom", None)).rstrip() + "\n"


def _summaries(group: click.Group, path: str) -> Iterator[str]:
    """A row of the table of commands, with a link, for each command."""
    for name in group.list_commands(click.Context(group)):
        command, full = group.commands[name], f"{path} {name}"
        if isinstance(command, click.Group):
            yield from _summaries(command, full)
        else:
            first = " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())
            yield f"| [{full.removeprefix('histoloom ')}](#{full.replace(' ', '-')}) | {first} |"


def _of_group(group: click.Group, path: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(group, parent, info_name=path.rpartition(" ")[2])
    for name in group.list_commands(context):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _of_group(command, f"{path} {name}", context)
        else:
            yield from _of_command(command, f"{path} {name}", click.Context(command, context, info_name=name))


def _of_command(command: click.Command, path: str, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield from ("", f"### {path}", "", f"`{path} {usage}`", "", inspect.cleandoc(command.help or ""), "")
    if command.epilog:
        yield from (inspect.cleandoc(command.epilog), "")
    options = [param for param in command.params if isinstance(param, click.Option)]
    if rows := [row for option in options if (row := option.get_help_record(context)) is not None]:
        yield from (
            "| option | meaning |",
            "|---|---|",
            *(f"| `{_cell(name)}` | {_cell(words)} |" for name, words in rows),
        )


def _cell(text: str) -> str:
    """Text in a table; what would read as an HTML element stays visible."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    click.echo(page(), nl=False)

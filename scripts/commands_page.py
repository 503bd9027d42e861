"""The commands in Markdown, made from the command line itself (docs/commands.md).

`python scripts/commands_page.py` prints them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from equipoise.cli import app


def page() -> str:
    """A heading a command, its arguments and its options."""
    return "\n".join(
        line for path, command in commands(typer.main.get_command(app)) for line in _command(path, command)
    )


def commands(command: Any, path: tuple[str, ...] = ("equipoise",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with its words."""
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from commands(child, (*path, name))
        else:
            yield (*path, name), child


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    parameters = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    options = [parameter for parameter in parameters if parameter.param_type_name == "option"]
    usage = " ".join([*path, *map(_metavar, arguments), *(["[OPTIONS]"] if options else [])])
    yield f"## {' '.join(path)} {{ #{'-'.join(path[1:])} }}\n\n```text\n{usage}\n```\n\n{_one_line(command.help)}\n"
    for argument in arguments:
        yield f"`{_metavar(argument)}`\n\n:   {_one_line(argument.help)}\n"
    for option in options:
        name = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
        default = "" if option.default in (None, False, True) else f"; default `{option.default}`"
        yield f"{name}{default}\n\n:   {_one_line(option.help)}\n"


def _metavar(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def _one_line(text: str | None) -> str:
    """Names in backticks stay as they are; what else Markdown would take for a mark does not occur in our help."""
    return re.sub(r"\s+", " ", text or "").strip()


if __name__ == "__main__":
    print(page())

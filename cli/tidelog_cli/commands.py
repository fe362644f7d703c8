"""Commands that are loaded when they are called: what one of them needs, the others do not wait for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup


class _Later(TyperCommand):
    """A command as a list of commands shows it."""

    def __init__(self, name: str, place: str, words: str) -> None:
        super().__init__(name, help=words)
        self._place = place

    def load(self) -> Any:
        """Return the command itself."""
        module, _, name = self._place.partition(":")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(found)
        return typer.main.get_command(alone)


class LazyGroup(TyperGroup):
    """A group that knows where its commands are, and a line about each, and loads only the one that is called."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Of each command `module:name` of a function or of a group, and what it does."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (place, words) in self.places.items():
            self.add_command(_Later(name, place, words))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that is called, loaded."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, _Later) else command, rest

    def loaded(self) -> dict[str, Any]:
        """Return every command by its name, all of them loaded."""
        return {name: each.load() if isinstance(each, _Later) else each for name, each in self.commands.items()}

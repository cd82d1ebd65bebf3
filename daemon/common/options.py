"""The options of a verb: each is told once, as a field of a frozen dataclass, and becomes a flag of argparse and back.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        sources: Annotated[tuple[Path, ...], Option("real files, or folders of them", "SRC", is_positional=True)]
        rate: Annotated[float, Option("files a second", "R")] = 2.0

The field's name is the flag (``--rate``), its type reads the text, its default ends the help: "files a second (2)". A
field without a default must be given; a tuple takes a flag several times; a field whose type is such a dataclass brings
all its flags along; a field without an ``Argument`` is no flag.
"""

from __future__ import annotations

import argparse
import getpass
import math
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from daemon.common.errors import USAGE, UserError

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """A flag for every field of the dataclass ``options``."""
    _add(options, Place(parser))


def take_options(options: type[T], found: argparse.Namespace) -> T:
    """The frozen value that the words have given."""
    return options(**{name: argument.take(name, default, found) for name, argument, _, default in _arguments(options)})


class Group(NamedTuple):
    """Flags that stand under a title of their own in the help, or of which one alone may be given."""

    title: str
    description: str | None = None
    is_choice: bool = False


class Place:
    """A parser and its groups, each made when its first flag comes."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser
        self._groups: dict[Group, argparse._ActionsContainer] = {}

    def of(self, group: Group | None) -> argparse._ActionsContainer:
        if group is None:
            return self.parser
        if group not in self._groups:
            titled, parser = (group.title, group.description), self.parser
            made = parser.add_mutually_exclusive_group() if group.is_choice else parser.add_argument_group(*titled)
            self._groups[group] = made
        return self._groups[group]


class Argument:
    """How a field comes into a parser, and its value out of what was parsed."""

    def add(self, name: str, kind: Any, default: Any, place: Place) -> None:
        """``kind`` is the field's type; ``default`` is MISSING where something must be given."""
        raise NotImplementedError

    def take(self, name: str, default: Any, found: argparse.Namespace) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Option(Argument):
    """A flag, or a word that stands for itself (``is_positional``).

    ``parse`` makes the whole value of one text, where the type alone cannot. A name that ends in the ``unit`` gives a
    flag without it. ``unless`` is what the help says instead of the default, ``alone`` what a flag without value means.
    """

    help: str
    metavar: str | None = None
    is_positional: bool = False
    flag: str | None = None
    choices: Collection[str] | None = None
    parse: Callable[[str], Any] | None = None
    nargs: str | None = None
    alone: str | None = None
    unit: str | None = None
    unless: str | None = None
    group: Group | None = None

    def add(self, name: str, kind: Any, default: Any, place: Place) -> None:
        # argparse hears of no default: a value that was not given is None, and ``take`` puts the field's in its place.
        more: dict[str, Any] = {"help": self._help(default), **self._reading(kind, default)}
        if not self.is_positional:
            more |= {"dest": name, "required": default is MISSING}
        place.of(self.group).add_argument(name if self.is_positional else self._flag(name), **more)

    def take(self, name: str, default: Any, found: argparse.Namespace) -> Any:
        value = getattr(found, name)
        return default if value is None else tuple(value) if isinstance(value, list) else value

    def _flag(self, name: str) -> str:
        plain = name.removesuffix(f"_{self.unit}") if self.unit else name
        return "--" + (self.flag or plain.replace("_", "-"))

    def _help(self, default: Any) -> str:
        told = self.unless
        if told is None:
            is_told = default is not MISSING and default is not None and default is not False
            told = _plain(default) if is_told else ""
            told += f" {self.unit}" if told and self.unit else ""
        return f"{self.help} ({told})".lstrip() if told else self.help

    def _reading(self, kind: Any, default: Any) -> dict[str, Any]:
        """What argparse needs to know to read a text of this kind."""
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(one for one in get_args(kind) if one is not type(None))
        if kind is bool:
            return {"action": "store_true", "default": None}
        is_several = get_origin(kind) is tuple and self.parse is None
        one = get_args(kind)[0] if is_several else kind
        is_literal = get_origin(one) is Literal
        words: dict[str, Any] = {
            "metavar": self.metavar,
            "choices": get_args(one) if is_literal else self.choices,
            "type": self.parse or (str if is_literal else one),
        }
        if self.alone is not None:
            words |= {"nargs": "?", "const": self.alone}
        elif self.nargs is not None:
            words["nargs"] = self.nargs
        elif self.is_positional and (is_several or default is not MISSING):
            words["nargs"] = ("+" if default is MISSING else "*") if is_several else "?"
        elif is_several:
            words["action"] = "append"
        return words


class Action(NamedTuple):
    """One of several things that a verb does, with options of its own."""

    options: type
    help: str


class Actions(Argument):
    """A word that says which options follow; the value is of the dataclass of that word."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self._actions = actions

    def add(self, name: str, kind: Any, default: Any, place: Place) -> None:
        words = place.parser.add_subparsers(dest=name, metavar="|".join(self._actions), required=True)
        for word, action in self._actions.items():
            add_options(words.add_parser(word, help=action.help), action.options)

    def take(self, name: str, default: Any, found: argparse.Namespace) -> Any:
        return take_options(self._actions[getattr(found, name)].options, found)


class _Nested(Argument):
    """The fields of another dataclass."""

    def __init__(self, options: type) -> None:
        self._options = options

    def add(self, name: str, kind: Any, default: Any, place: Place) -> None:
        _add(self._options, place)

    def take(self, name: str, default: Any, found: argparse.Namespace) -> Any:
        return take_options(self._options, found)


def _add(options: type, place: Place) -> None:
    for name, argument, kind, default in _arguments(options):
        argument.add(name, kind, default, place)


def _arguments(options: type) -> Iterator[tuple[str, Argument, Any, Any]]:
    """Name, argument, type and default of every field that is one."""
    kinds = get_type_hints(options, include_extras=True)
    for field in fields(options):
        kind, argument = kinds[field.name], None
        if get_origin(kind) is Annotated:
            kind, *notes = get_args(kind)
            argument = next((note for note in notes if isinstance(note, Argument)), None)
        elif is_dataclass(kind) and isinstance(kind, type):
            argument = _Nested(kind)
        if argument is not None:
            yield field.name, argument, kind, field.default


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def this_user() -> str:
    """Whoever is logged in; "" where nobody knows, as in a container without a name for its user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


# A range, as options write one.

_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*")


@dataclass(frozen=True, slots=True)
class Range:
    """From ``low`` to ``high``, both included."""

    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def parse(cls, option: str, written: str, example: str) -> Self:
        """``150..250``, ``150..`` or ``..250``. Raises UserError 64 for anything else."""
        found = _RANGE.fullmatch(written)
        if found is None or not any(found.groups()):
            raise UserError(USAGE, f'{option} "{written}": write a range, like {example}; one end may be left out')
        low, high = found.groups()
        made = cls(float(low) if low else -math.inf, float(high) if high else math.inf)
        if made.high < made.low:
            raise UserError(USAGE, f'{option} "{written}": the lower end comes first: {high}..{low}')
        return made

    def text(self, unit: str = "") -> str:
        """``150 to 250 pN``, ``at least 150 pN``, ``at most 250 pN``, ``3``."""
        behind = f" {unit}" if unit else ""
        if self.low == -math.inf:
            return f"at most {self.high:g}{behind}"
        if self.high == math.inf:
            return f"at least {self.low:g}{behind}"
        return f"{self.low:g} to {self.high:g}{behind}" if self.low < self.high else f"{self.low:g}{behind}"

    def holds(self, value: float | None) -> bool:
        """Whether a value lies in it; what is not known does not."""
        return value is not None and self.low <= value <= self.high

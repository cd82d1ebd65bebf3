"""Options: a field of a frozen dataclass is a flag, with its default and its help, and comes back as a typed value."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import pytest

from daemon.cli import VERBS, Parser
from daemon.common.errors import USAGE, UserError
from daemon.common.options import Action, Actions, Argument, Group, Option, add_options, take_options
from daemon.config import CLIENTS, Config, Flags, Keys

ONE = Group("how it is told", is_choice=True)


def pair(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split("x"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    wait_s: Annotated[float, Option("so long", "S", unit="s")] = 8.0
    made_here: int = 3  # no flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One field of every kind."""

    files: Annotated[tuple[Path, ...], Option("what", "FILE", is_positional=True)]
    into: Annotated[Path, Option("where to", "DIR")]
    inner: Inner
    mode: Annotated[Literal["grow", "burst"], Option("how")] = "grow"
    count: Annotated[int, Option("", "N")] = 0
    seed: Annotated[int | None, Option("of chance", "N", unless="another each time")] = None
    teach: Annotated[tuple[str, ...], Option("repeatable", "GLOB")] = ("*",)
    size: Annotated[tuple[int, ...], Option("of the picture", "CxR", parse=pair)] = (4, 3)
    losses: Annotated[tuple[str, ...], Option("several", "NAME", nargs="+")] = ()
    json: Annotated[bool, Option("as JSON", group=ONE)] = False
    page: Annotated[bool, Option("as a page", group=ONE)] = False
    renamed: Annotated[str, Option("under another name", flag="other-name")] = "shipped"


ACTIONS = {"one": Action(Inner, "the first"), "two": Action(Example, "the second")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    action: Annotated[Inner | Example, Actions(ACTIONS)]


def read(options: type, *words: str) -> Any:
    parser = Parser(prog="x")
    add_options(parser, options)
    return take_options(options, parser.parse_args(words))


def test_what_is_not_given_is_the_field_s_default() -> None:
    assert read(Example, "a", "b", "--into", "c") == Example(
        files=(Path("a"), Path("b")), into=Path("c"), inner=Inner()
    )


def test_every_kind_of_field_comes_back_as_its_type() -> None:
    words = "a --into c --wait 0.5 --mode burst --count 0 --seed 7 --teach x --teach y --size 1x2 --losses p q --json"
    assert read(Example, *words.split(), "--other-name", "mine") == Example(
        files=(Path("a"),),
        into=Path("c"),
        inner=Inner(wait_s=0.5),
        mode="burst",
        count=0,
        seed=7,
        teach=("x", "y"),
        size=(1, 2),
        losses=("p", "q"),
        json=True,
        renamed="mine",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--into c", "the following arguments are required: FILE"),
        ("a", "the following arguments are required: --into"),
        ("a --into c --mode slow", "argument --mode: invalid choice: 'slow'"),
        ("a --into c --count x", "argument --count: invalid int value: 'x'"),
        ("a --into c --size x", "argument --size: invalid pair value: 'x'"),
        ("a --into c --json --page", "argument --page: not allowed with argument --json"),
        ("a --into c --made-here 4", "unrecognized arguments: --made-here"),
    ],
)
def test_a_mistake_is_a_user_error(words: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as refused:
        read(Example, *words.split())
    assert refused.value.exit_code == USAGE


def test_the_help_ends_with_the_default() -> None:
    parser = Parser(prog="x")
    add_options(parser, Example)
    text = " ".join(parser.format_help().split())
    for part in (
        "--wait S so long (8 s)",
        "--mode {grow,burst} how (grow)",
        "--count N (0)",
        "--seed N of chance (another each time)",
        "--teach GLOB repeatable (*)",
        "--size CxR of the picture (4,3)",
        "--json as JSON --page as a page",
        "under another name (shipped)",
    ):
        assert part in text


def test_a_word_chooses_what_follows() -> None:
    assert read(Choice, "one", "--wait", "2").action == Inner(wait_s=2.0)
    with pytest.raises(UserError, match=r"required: one\|two"):
        read(Choice)


def test_keys_of_the_configuration_are_taken_as_typed() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Some:
        service: Annotated[Flags, Keys("watch", "state", "metrics_port")]

    words = ("--config", "a.toml", "--state", "./s", "--watch", "x", "--watch", "x", "--metrics-port", "0")
    flags = read(Some, *words).service
    assert flags == Flags("a.toml", {"state": "./s", "watch": ("x", "x"), "metrics_port": 0})
    with pytest.raises(UserError, match="unrecognized arguments: --model"):
        read(Some, "--model", "shipped")


def lacking(options: type) -> Iterator[str]:
    for name, hint in get_type_hints(options, include_extras=True).items():
        if is_dataclass(hint) and isinstance(hint, type):
            yield from lacking(hint)
        elif not any(isinstance(note, Argument) for note in get_args(hint)):
            yield f"{options.__module__}.{options.__name__}.{name}"


#: Fields that a verb fills in itself.
NO_FLAGS = {"daemon.bench.Plan.soak"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_is_a_flag(verb: str) -> None:
    options = importlib.import_module(f"daemon.verbs.{verb}").Options
    forgotten = set(lacking(options)) - NO_FLAGS
    assert not forgotten, f"without a flag: write Annotated[type, Option(help, METAVAR)] for {', '.join(forgotten)}"


#: Keys above the first table that the command line of `run` cannot say.
NO_KEYS = {"text", "folder", *CLIENTS}


def test_every_key_above_the_tables_is_a_flag_of_run() -> None:
    parser = Parser(prog="run")
    add_options(parser, importlib.import_module("daemon.verbs.run").Options)
    flags = set(re.findall(r"--([a-z-]+)", parser.format_help()))
    keys = {one.name for one in fields(Config) if one.compare and not is_dataclass(one.default)} - NO_KEYS
    missing = {key for key in keys if key.replace("_", "-") not in flags}
    assert not missing, f"keys without a flag of run: add Option(help, METAVAR) to their fields in Config: {missing}"


def test_the_help_of_train_tells_what_its_modules_take() -> None:
    """It is told by hand, as --help loads no torch."""
    from daemon.learn.training import HELD_OUT, MOST_MISSED
    from models.raster import RasterProfile

    parser = Parser(prog="train")
    add_options(parser, importlib.import_module("daemon.verbs.train").Options)
    text, profile = " ".join(parser.format_help().split()), RasterProfile()
    for part in (
        f"simulated events that may be discarded ({MOST_MISSED})",
        f"simulated curves to calibrate on ({HELD_OUT})",
        f"columns and rows of the picture ({profile.columns}x{profile.rows})",
        f"averaged to N samples a column ({profile.samples_per_column}; may change with --init)",
    ):
        assert part in text, f"daemon/verbs/train.py tells another default: {part}"

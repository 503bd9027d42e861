"""What `equipoise compare` calls a method: some settings over a recipe's, by a name.

A schedule (`commit`), a task weighter that learns or draws its weights by itself (`dwa`), one of each joined by a plus
(`commit+dwa`), one model a task (`stl`), or a name and settings of the user's own. What a name does not mention is the
recipe's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from equipoise.errors import RecipeError
from equipoise.recipe import SCHEDULES

#: One model for each task, trained on that alone.
STL = "stl"
#: The weighters that need no weights from elsewhere.
WEIGHTERS = ("ew", "tla", "rlw", "dwa", "igbv1")
USUAL = "constant,commit-clr,commit"
LONGEST = 60
SEED = "train.seed"
FORM = "NAME: key=value key=value"


def parse_methods(names: str | None, own: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Read the methods of a command line.

    Args:
        names: schedules, weighters, or both joined by `+`; by commas. None: `USUAL` where `own` is empty, else none.
        own: `NAME: key=value key=value` each; a value that holds spaces stands in quotes.

    Returns:
        By name, in this order, what it puts over the recipe, as `key=value`.

    Raises:
        RecipeError: a method that does not exist, a name twice, or a text of another form.
    """
    if names is None:
        names = "" if own else USUAL
    found: dict[str, tuple[str, ...]] = {}
    for name in names.split(",") if names or not own else ():
        _add(found, "--methods", name.strip(), _named(name.strip()))
    for text in own:
        _add(found, "--method", *_own(text))
    return found


def parse_seeds(text: str) -> list[int]:
    """Read seeds, by commas.

    Raises:
        RecipeError: one that is no whole number from 0 on, or stands there twice.
    """
    seeds = []
    for part in (part.strip() for part in text.split(",")):
        if not re.fullmatch(r"[0-9]{1,9}", part):
            raise RecipeError(f"--seeds: found {part!r}; whole numbers from 0 on are allowed, by commas")
        if int(part) in seeds:
            raise RecipeError(f"--seeds: found {int(part)} twice; seeds must differ")
        seeds.append(int(part))
    return seeds


def baseline_of(methods: Sequence[str], named: str | None) -> str:
    """The method that the others are compared with; the first where none is named.

    Raises:
        RecipeError: it is not among them.
    """
    if named is not None and named not in methods:
        raise RecipeError(f"--baseline: found {named!r}; methods of this comparison: {', '.join(methods)}")
    return named or methods[0]


def _named(name: str) -> tuple[str, ...]:
    if name == STL:
        return ()
    parts = name.split("+")
    schedules = [part for part in parts if part in SCHEDULES]
    weighters = [part for part in parts if part in WEIGHTERS]
    if len(schedules) > 1 or len(weighters) > 1 or len(schedules) + len(weighters) < len(parts):
        raise RecipeError(
            f"--methods: found {name!r}; allowed: a schedule ({', '.join(SCHEDULES)}), a task weighter "
            f"({', '.join(WEIGHTERS)}), one of each joined by +, or {STL} (one model a task)"
        )
    return (
        *(f"balance.modules.schedule={schedule}" for schedule in schedules),
        *(f"balance.tasks.weighter={weighter}" for weighter in weighters),
    )


def _own(text: str) -> tuple[str, tuple[str, ...]]:
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not colon:
        raise RecipeError(f"--method: found {text!r}; expected {FORM}, for example 'slow: train.learning_rate=1e-5'")
    if not name or len(name) > LONGEST or not name.isprintable() or not name[0].isalnum():
        raise RecipeError(
            f"--method: found the name {name!r:.80}; a name begins with a letter or digit, is printable and has "
            f"{LONGEST} characters at the most"
        )
    if name == STL:
        raise RecipeError(f"--method: {STL} is one model a task, of --methods; call this one otherwise")
    try:
        settings = tuple(shlex.split(rest))
    except ValueError as error:
        raise RecipeError(f"--method {name}: {error} in {rest.strip()!r}") from None
    for setting in settings:
        key, equals, _ = setting.partition("=")
        if not equals or not key:
            raise RecipeError(f"--method {name}: found {setting!r}; expected {FORM}")
        if key == SEED:
            raise RecipeError(f"--method {name}: {SEED} is what --seeds sets, for all methods alike")
    return name, settings


def _add(found: dict[str, tuple[str, ...]], option: str, name: str, settings: tuple[str, ...]) -> None:
    if name in found:
        raise RecipeError(f"{option}: two methods are named {name!r}; names must differ")
    found[name] = settings

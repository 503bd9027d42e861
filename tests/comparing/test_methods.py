"""What the command line calls methods, and the one line for what is none."""

from __future__ import annotations

import pytest

from equipoise.comparing.methods import baseline_of, parse_methods, parse_seeds
from equipoise.errors import RecipeError
from equipoise.recipe import SCHEDULES
from equipoise.tasks.plan import WEIGHTERS


def test_schedules_weighters_and_both():
    assert parse_methods("constant, dwa,commit+rlw,ew+llm-lr-up") == {
        "constant": ("balance.modules.schedule=constant",),
        "dwa": ("balance.tasks.weighter=dwa",),
        "commit+rlw": ("balance.modules.schedule=commit", "balance.tasks.weighter=rlw"),
        "ew+llm-lr-up": ("balance.modules.schedule=llm-lr-up", "balance.tasks.weighter=ew"),
    }
    assert parse_methods("stl,ew") == {"stl": (), "ew": ("balance.tasks.weighter=ew",)}
    assert list(parse_methods(None)) == ["constant", "commit-clr", "commit"]
    assert list(parse_methods(",".join([*SCHEDULES, *WEIGHTERS]))) == [*SCHEDULES, *WEIGHTERS]


def test_the_users_own_come_after_and_may_stand_alone():
    own = ["LR 1e-3: train.learning_rate=1e-3", "x:a.b='{llm: 1}' c=d"]
    assert parse_methods(None, own) == {"LR 1e-3": ("train.learning_rate=1e-3",), "x": ("a.b={llm: 1}", "c=d")}
    assert list(parse_methods("commit", own)) == ["commit", "LR 1e-3", "x"]
    assert parse_methods("", ["as it is:"]) == {"as it is": ()}


@pytest.mark.parametrize(
    ("names", "own", "message"),
    [
        (
            "comit",
            [],
            r"^--methods: found 'comit'; allowed: a schedule \(constant, .*\(ew, .*\+, or stl \(one model a task\)$",
        ),
        ("constant,", [], r"^--methods: found ''"),
        ("", [], r"^--methods: found ''"),
        ("commit+constant", [], r"^--methods: found 'commit\+constant'"),
        ("dwa+rlw", [], r"^--methods: found 'dwa\+rlw'"),
        ("cotbal", [], r"^--methods: found 'cotbal'"),
        ("ew,ew", [], r"^--methods: two methods are named 'ew'"),
        ("ew", ["ew: a=1"], r"^--method: two methods are named 'ew'"),
        (None, ["slow train.learning_rate=1"], r"^--method: found 'slow .*expected NAME: key=value"),
        (None, ["slow: train.learning_rate"], r"^--method slow: found 'train.learning_rate'; expected NAME: "),
        (None, ["slow: =1"], r"^--method slow: found '=1'"),
        (None, ["slow: a='1"], r"^--method slow: No closing quotation"),
        (None, [": a=1"], r"^--method: found the name ''"),
        (None, ["=cmd|x: a=1"], r"^--method: found the name '=cmd|x'; a name begins with a letter or digit"),
        (None, ["a\u202eb: a=1"], r"^--method: found the name 'a\\u202eb'"),
        (None, ["x" * 61 + ": a=1"], r"^--method: found the name .* 60 characters at the most$"),
        (None, ["stl: a=1"], r"^--method: stl is one model a task"),
        ("stl+commit", [], r"^--methods: found 'stl\+commit'"),
        (None, ["x: train.seed=3"], r"^--method x: train\.seed is what --seeds sets, for all methods alike$"),
    ],
)
def test_a_mistake_is_named(names, own, message):
    with pytest.raises(RecipeError, match=message):
        parse_methods(names, own)


def test_seeds():
    assert parse_seeds("0, 12,3") == [0, 12, 3]


@pytest.mark.parametrize("text", ["", "0,", "-1", "1.5", "a", "0,1,00", "٣"])
def test_what_is_no_seed(text):
    with pytest.raises(RecipeError, match=r"^--seeds: found "):
        parse_seeds(text)


def test_the_baseline_is_the_first_or_named():
    assert baseline_of(["a", "b"], None) == "a"
    assert baseline_of(["a", "b"], "b") == "b"
    with pytest.raises(RecipeError, match=r"^--baseline: found 'c'; methods of this comparison: a, b$"):
        baseline_of(["a", "b"], "c")

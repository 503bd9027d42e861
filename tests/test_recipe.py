"""Recipes: each mistake is one line that names the key path, what was found and what is allowed; what is written out
reads back the same; nothing but a Recipe or a RecipeError comes out of any input."""

from __future__ import annotations

import contextlib
import copy
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data.readers import find_reader
from equipoise.errors import RecipeError
from equipoise.metrics import METRICS
from equipoise.recipe import PACKAGED, Coordination, MetricName, ReaderName, Recipe
from equipoise.recipe_reading import load_recipe, parse_recipe

VALID = {
    "model": {"path": "hub/model", "lora": {"rank": 4}, "train": {"projector": "full"}, "modules": {"a": "x"}},
    "tasks": [{"name": "vqa", "reader": "easy_vqa"}, {"name": "caption", "reader": "easy_vqa", "metric": None}],
    "balance": {"modules": {"schedule": "commit"}},
    "train": {"learning_rate": 1.0e-3},
}
SHIPPED = sorted(p.name for p in resources.files("equipoise").joinpath("recipes").iterdir() if p.name.endswith("yaml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(VALID), encoding="utf-8")
    return path


def mistake(file: Path, *overrides: str) -> str:
    """The message of the RecipeError that these overrides lead to; one line, whatever they hold."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("override", "path", "suggestion", "allowed"),
    [
        ("balnce={}", "balnce", "balance", "model, tasks, data, balance, train"),
        ("model.lroa={}", "model.lroa", "lora", "trust_remote_code"),
        ("model.lora.rnk=3", "model.lora.rnk", "rank", "rank, alpha, dropout, dora"),
        ("tasks.vqa.max_tran=3", "tasks.vqa.max_tran", "max_train", "max_new_tokens"),
        ("balance.module={}", "balance.module", "modules", "modules"),
        ("balance.modules.windw=3", "balance.modules.windw", "window", "estimator"),
        ("train.learningrate=3", "train.learningrate", "learning_rate", "batch_size"),
    ],
)
def test_an_unknown_key_at_any_level_names_the_closest_and_the_allowed_ones(file, override, path, suggestion, allowed):
    message = mistake(file, override)
    assert message.startswith(f"{file}: {path}: unknown key; did you mean {suggestion}? allowed: ")
    assert allowed in message.partition("allowed: ")[2]


def test_a_task_whose_name_says_nothing_has_its_number(file):
    assert mistake(file, "tasks.vqa.metric=x", "tasks.vqa.name=caption").startswith(f"{file}: tasks.0.metric: ")
    assert mistake(file, "tasks.vqa.metric=x", "tasks.vqa.name=3").startswith(f"{file}: tasks.0.name: found 3; ")
    # A task may be named as a key is.
    assert "unknown key; did you mean metric? allowed: name, reader" in mistake(
        file, "tasks.vqa.metrc=x", "tasks.vqa.name=train"
    )


def test_an_unknown_key_that_resembles_none_suggests_none(file):
    assert "did you mean" not in mistake(file, "qqqq=1")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.seed=x", "train.seed: found 'x'; input should be a valid integer"),
        ("train.batch_size=1.5", "train.batch_size: found 1.5; input should be a valid integer"),
        ("train.report_to=wandb", "train.report_to: found 'wandb'; input should be a valid list"),
        ("train.learning_rate=[1]", "train.learning_rate: found [1]; input should be a valid number"),
        ("train.learning_rate=fast", "train.learning_rate: found 'fast'; input should be a valid number"),
        ("train=3", "train: found 3; input should be a valid dictionary"),
        ("model=null", "model: found None; input should be a valid dictionary"),
        ("model.path=3", "model.path: found 3; input should be a valid string"),
        ("model.lora=3", "model.lora: found 3; input should be a valid dictionary"),
        ("model.train.projector=half", "model.train.projector: found 'half'; input should be 'full' or 'frozen'"),
        ("model.train={1: full}", "model.train.1.[key]: found 1; input should be a valid string"),
        ("model.modules={a: 3}", "model.modules.a: found 3; input should be a valid string"),
        ("balance.modules=3", "balance.modules: found 3; input should be a dictionary"),
        (
            "balance.modules.schedule=comit",
            "balance.modules.schedule: found 'comit'; did you mean commit? input should be 'constant', ",
        ),
        ("tasks.vqa.reader=lava", "tasks.vqa.reader: found 'lava'; did you mean llava? input should be 'easy_vqa', "),
        ("tasks.vqa.metric=exactmatch", "tasks.vqa.metric: found 'exactmatch'; did you mean exact_match? input should"),
        ("tasks=3", "tasks: found 3; input should be a valid list"),
        ("tasks.1=3", "tasks.1: found 3; input should be a valid dictionary"),
        (
            "tasks.vqa.reader=csv",
            "tasks.vqa.reader: found 'csv'; input should be 'easy_vqa', 'vega_charts', 'rendered_text', 'chatterbot', "
            "'tuxpaint', 'asterisk', 'freepats', 'sonic_pi', 'textvqa', 'iconqa', 'aokvqa', 'vqav2', 'gqa', 'chartqa', "
            "'ocrvqa', 'clothoaqa', 'macs', 'sdd', 'sharegpt4v', 'refcoco', 'sharegpt', 'llava', 'jsonl', 'parquet' or "
            "'saved'",
        ),
        ("tasks.vqa.metric=bleu", "tasks.vqa.metric: found 'bleu'; input should be 'exact_match'"),
    ],
)
def test_a_wrong_type_or_word_shows_what_was_found_and_what_is_allowed(file, override, line):
    assert mistake(file, override).startswith(f"{file}: {line}")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.learning_rate=-1", "train.learning_rate: found -1; input should be greater than or equal to 0"),
        ("train.learning_rate=.nan", "train.learning_rate: found nan; input should be a finite number"),
        ("train.epochs=0", "train.epochs: found 0; input should be greater than 0"),
        ("train.warmup=1", "train.warmup: found 1; input should be less than 1"),
        ("model.lora.rank=0", "model.lora.rank: found 0; input should be greater than or equal to 1"),
        ("balance.modules.window=0", "balance.modules.window: found 0; input should be greater than or equal to 1"),
        ("balance.modules.gain=0", "balance.modules.gain: found 0; input should be greater than 0"),
        ("balance.modules.min_factor=1", "balance.modules.min_factor: found 1; input should be less than 1"),
        ("tasks.vqa.max_test=0", "tasks.vqa.max_test: found 0; input should be greater than or equal to 1"),
        ("tasks=[]", "tasks: found []; list should have at least 1 item"),
        ("tasks.vqa.name=a b", "tasks.0.name: found 'a b'; string should match pattern"),
    ],
)
def test_a_value_out_of_range_shows_the_range(file, override, line):
    assert mistake(file, override).startswith(f"{file}: {line}")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.learning_rate={llm: bad}", "train.learning_rate.llm: found 'bad'; input should be a valid number"),
        ("train.learning_rate={llm: -1}", "train.learning_rate.llm: found -1; input should be greater than or equal"),
    ],
)
def test_a_bad_value_in_a_learning_rate_map_names_its_module(file, override, line):
    assert mistake(file, override).startswith(f"{file}: {line}")


@pytest.mark.parametrize("override", ["train.learning_rate=.inf", "train.weight_decay=.inf", "train.epochs=.inf"])
def test_infinity_is_out_of_range(file, override):
    assert override.partition("=")[0] in mistake(file, override)


@pytest.mark.parametrize("override", ["train.batch_size=true", "train.learning_rate=true", "train.seed=false"])
def test_a_boolean_is_no_number(file, override):
    assert override.partition("=")[0] in mistake(file, override)


@pytest.mark.parametrize(
    "path", [("model",), ("tasks",), ("model", "path"), ("tasks", 1, "name"), ("tasks", 0, "reader")]
)
def test_a_missing_key_is_named(file, path):
    content: Any = copy.deepcopy(VALID)
    node = content
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    shown = ["vqa" if part == 0 else str(part) for part in path]  # a task's name, where it has one
    assert mistake(file) == f"{file}: {'.'.join(shown)}: is missing"


def test_two_tasks_of_one_name(file):
    assert (
        mistake(file, "tasks.caption.name=vqa")
        == f"{file}: tasks: two tasks are named 'vqa'; names must differ, and not in case alone"
    )


def test_paths_must_exist(file, tmp_path):
    assert mistake(file, "tasks.vqa.path=/not/there") == f"{file}: tasks.vqa.path: /not/there does not exist"
    assert mistake(file, "model.path=/not/there") == f"{file}: model.path: /not/there is not a folder"
    assert mistake(file, "model.path=./there") == f"{file}: model.path: there is not a folder"
    load_recipe(file, [f"tasks.vqa.path={tmp_path}", f"model.path={tmp_path}"])


def test_a_hub_id_or_an_embedded_stack_is_no_path(file):
    assert load_recipe(file, ["model.path=name/model"]).model.path == "name/model"
    assert load_recipe(file, ["model.path=embedded:a/b/c"]).model.is_embedded


def test_the_jsonl_reader_needs_a_path(file):
    assert mistake(file, "tasks.vqa.reader=jsonl").endswith("tasks.vqa.path: is missing; the jsonl reader needs one")


def test_a_recipe_file_that_is_not_there(tmp_path):
    assert mistake(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: cannot be read (No such file or directory)"


@pytest.mark.parametrize(
    "text", [b"model: [", b"a: b: c", b"\xff\xfe\x00", b"\x00", b"{[1]: 2}", b"a: !!python/name:x y"]
)
def test_what_is_not_yaml(file, text):
    file.write_bytes(text)
    assert mistake(file).startswith(f"{file}: is not YAML (")


NOT_YAML_BUT_OTHER_ERRORS = ["2024-13-45", "0b_", "!!int x", "!!bool x", "!!timestamp x", "[" * 3000]


@pytest.mark.parametrize("value", NOT_YAML_BUT_OTHER_ERRORS, ids=lambda value: value[:12])
def test_what_yaml_cannot_construct(file, value):
    file.write_text(f"a: {value}", encoding="utf-8")
    assert mistake(file).startswith(f"{file}: is not YAML (")


@pytest.mark.parametrize("value", NOT_YAML_BUT_OTHER_ERRORS, ids=lambda value: value[:12])
def test_an_override_that_yaml_cannot_construct(file, value):
    assert mistake(file, f"train.seed={value}").startswith("override train.seed: ")


@pytest.mark.parametrize(("text", "shown"), [("- 1", "[1]"), ("", "None"), ("3", "3"), ("word", "'word'")])
def test_what_is_not_a_mapping(file, text, shown):
    file.write_text(text, encoding="utf-8")
    assert mistake(file) == f"{file}: found {shown}; a recipe is a mapping with model, tasks, data, balance, train"


def test_a_long_value_is_shown_cut(file):
    shown = mistake(file, f"train.seed={'x' * 500}").partition("found ")[2].partition(";")[0]
    assert shown.endswith("...")
    assert len(shown) == 60


def test_a_line_break_in_a_key_still_gives_one_line(file):
    assert "unknown key" in mistake(file, "train.a\nb=3")


def test_a_path_that_is_too_long(file):
    assert "tasks.vqa.path" in mistake(file, f"tasks.vqa.path={'x' * 300}")


def test_yaml_reads_1e_4_as_text_and_the_recipe_as_a_number(file):
    assert yaml.safe_load("1e-4") == "1e-4"
    assert load_recipe(file, ["train.learning_rate=1e-4"]).train.learning_rate == 1e-4
    assert load_recipe(file, ["train.learning_rate={llm: 1e-4}"]).train.learning_rate == {"llm": 1e-4}
    assert load_recipe(file, ["balance.modules.gain=1e-1"]).balance.modules.gain == 0.1


def test_overrides_reach_every_level_and_the_last_one_wins(file):
    recipe = load_recipe(
        file,
        [
            "train.seed=1",
            "train.seed=2",
            "balance.modules.window=7",
            "tasks.caption.max_train=5",
            "tasks.0.options={caption: true}",
            "model.lora=null",
            "model.train.vision_tower=full",
            "tasks.vqa.name=new-name",
        ],
    )
    assert recipe.train.seed == 2
    assert recipe.balance.modules.window == 7
    assert recipe.tasks[1].max_train == 5
    assert recipe.tasks[0].options == {"caption": True}
    assert recipe.model.lora is None
    assert recipe.model.train == {"projector": "full", "vision_tower": "full"}
    assert recipe.tasks[0].name == "new-name"


def test_an_override_makes_the_sections_above_it(file):
    file.write_text("model: {path: a/b, lora: null}\ntasks: [{name: t, reader: easy_vqa}]", encoding="utf-8")
    recipe = load_recipe(file, ["balance.modules.window=7", "model.lora.rank=2"])
    assert recipe.balance.modules.window == 7
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 2


def test_an_override_keeps_what_follows_the_first_equals_sign(file):
    assert load_recipe(file, ["model.modules={a: 'x=y'}"]).model.modules == {"a": "x=y"}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.seed", "override 'train.seed': expected key.path=value, for example train.seed=1"),
        ("=3", "override '=3': expected key.path=value, for example train.seed=1"),
        ("train.seed=[", "override train.seed: '[' is not YAML ("),
        ("tasks.none.reader=x", "override tasks.none.reader: no item 'none'; there are 2: vqa, caption"),
        ("tasks.2.reader=x", "override tasks.2.reader: no item '2'; there are 2: vqa, caption"),
        ("tasks.-1=x", "override tasks.-1: no item '-1'; there are 2: vqa, caption"),
        ("tasks.vqa.name.x=3", "override tasks.vqa.name.x: x is below 'vqa', which has no keys"),
        ("tasks.vqa.name.x.y=3", "override tasks.vqa.name.x.y: x is below 'vqa', which has no keys"),
    ],
)
def test_a_wrong_override_is_named(file, override, line):
    assert mistake(file, override).startswith(line)


def test_an_item_number_is_made_of_decimal_digits(file):
    assert mistake(file, "tasks.²=3").startswith("override tasks.²: no item '²'")


def test_what_is_written_out_reads_back_the_same(file, tmp_path):
    recipe = load_recipe(
        file,
        [
            "train.learning_rate={projector: 1e-3, llm: 2e-5}",
            f"tasks.vqa.path={tmp_path}",
            "tasks.vqa.options={caption: true, words: [ä, 日本, 1.5, null]}",
            "balance.modules={schedule: commit-clr, controller: servo, gain: 0.01, regulariser_cap: null}",
            "model.modules={a: 'x|\\.y$'}",
            "train.report_to=[tensorboard]",
        ],
    )
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_what_is_written_out_holds_every_default(file):
    written = yaml.safe_load(load_recipe(file).to_yaml())
    assert written["train"].keys() == type(load_recipe(file).train).model_fields.keys()
    assert written["balance"]["modules"]["window"] == Coordination().window


@pytest.mark.parametrize("name", SHIPPED)
def test_the_packaged_recipes_are_valid_and_read_back_the_same(name, tmp_path):
    with resources.as_file(resources.files("equipoise") / "recipes" / name) as path:
        recipe = load_recipe(path)
    (tmp_path / name).write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / name) == recipe


def test_recipes_are_packaged():
    assert "demo.yaml" in SHIPPED


def test_warnings_name_settings_that_can_diverge():
    assert Coordination().warnings() == []
    assert "window is 3" in Coordination(window=3).warnings()[0]
    assert "average is mean" in Coordination.paper().warnings()[0]
    assert Coordination("constant", window=3, average="mean").warnings() == []


def keys_of(node: Any) -> set[str]:
    """Every key of a nested mapping."""
    if isinstance(node, dict):
        return set(node) | {key for value in node.values() for key in keys_of(value)}
    return {key for item in node for key in keys_of(item)} if isinstance(node, list) else set()


WRITTEN = yaml.safe_load(parse_recipe(VALID, "valid").to_yaml())
KEYS = st.sampled_from(sorted(keys_of(WRITTEN)))
WORDS = st.sampled_from(["commit", "servo", "exact", "full", "bf16", "cosine", "jsonl", "easy_vqa", "1e-4", "a/b", "."])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=20) | st.dates() | st.binary()
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | LEAVES, inner, max_size=3), max_leaves=8
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every item of a nested structure."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


@given(st.dictionaries(KEYS | LEAVES, ANYTHING, max_size=4))
def test_any_mapping_gives_a_recipe_or_a_recipe_error(content):
    with pytest.raises(RecipeError):
        parse_recipe(content, "fuzz")


@given(st.lists(st.tuples(st.sampled_from(places(WRITTEN)), KEYS | st.none(), ANYTHING), min_size=1, max_size=3))
def test_any_change_of_a_recipe_gives_a_recipe_that_reads_back_or_a_recipe_error(changes):
    content = copy.deepcopy(WRITTEN)
    for path, new_key, value in changes:
        node = content
        try:
            for part in path[:-1]:
                node = node[part]
            node[path[-1] if new_key is None else new_key] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    try:
        recipe = parse_recipe(content, "fuzz")
    except RecipeError:
        return
    assert isinstance(recipe, Recipe)
    if not any(task.options for task in recipe.tasks):  # options may hold dates and the like, which YAML writes as text
        assert parse_recipe(yaml.safe_load(recipe.to_yaml()), "again") == recipe


@given(st.text(alphabet="model:tasks train=.[]{}-*&,'\"|>\n 12e", max_size=40))
def test_any_override_gives_a_recipe_or_a_recipe_error(tmp_path_factory, override):
    file = tmp_path_factory.getbasetemp() / "overridden.yaml"
    if not file.exists():
        file.write_text(yaml.safe_dump(VALID), encoding="utf-8")
    with contextlib.suppress(RecipeError):
        assert isinstance(load_recipe(file, [override]), Recipe)


def test_every_reader_and_metric_that_a_recipe_names_is_there():
    assert {name for name in get_args(ReaderName) if not find_reader(name).needs_path} == PACKAGED
    assert set(get_args(MetricName)) == METRICS.keys()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("tasks.vqa.max_turns=9", "tasks.vqa: max_turns: set merge: true with it; it bounds merged conversations"),
        ("tasks.vqa.hold_out={train: 3}", "tasks.vqa.hold_out.train.[key]: found 'train'; input should be"),
        ("tasks.vqa.hold_out={test: 0}", "tasks.vqa.hold_out.test: found 0; input should be greater than or equal"),
        ("tasks.vqa.weight=0", "tasks.vqa.weight: found 0; input should be greater than 0"),
        ("data.on_error=ignore", "data.on_error: found 'ignore'; input should be 'raise' or 'skip'"),
        ("data.order=random", "data.order: found 'random'; input should be 'size', 'weight' or 'sequential'"),
        ("data.batchs=mixed", "data.batchs: unknown key; did you mean batches? allowed: on_error, order, batches"),
        ("train.too_long=truncate", "train.too_long: found 'truncate'; input should be 'raise' or 'cut'"),
    ],
)
def test_settings_of_data(file, override, line):
    assert line in mistake(file, override)

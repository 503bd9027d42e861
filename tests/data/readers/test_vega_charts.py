"""Charts of real tables: what is asked about which numbers, that the pictures show them, and no row in two splits."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equipoise.data.readers import vega_charts
from equipoise.data.readers.files import watching
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.packages import VEGA, fetch

SPLITS = ("train", "validation", "test")
DAYS = [date(2020, 1, 1) + timedelta(days=number) for number in range(12)]  # a Wednesday, so one whole week
SECTORS = (
    "construction", "manufacturing", "information", "utilities", "other_services", "durable_goods", "retail_trade",
    "government", "nondurable_goods", "wholesale_trade", "financial_activities", "mining_and_logging",
)  # fmt: skip
TABLES: dict[str, list[dict[str, object]]] = {
    "stocks.csv": [
        {"symbol": "A", "date": "Jan 1 2000", "price": 39.81},
        {"symbol": "A", "date": "Feb 1 2000", "price": 7},
        {"symbol": "B", "date": "Jan 1 2000", "price": 40.5},
        {"symbol": "B", "date": "Feb 1 2000", "price": 7},
        {"symbol": "C", "date": "Feb 1 2000", "price": 6.999},
    ],
    "cars.json": [
        {"Name": name, "Miles_per_Gallon": mpg, "Horsepower": 90, "Weight_in_lbs": 2000}
        for name, mpg in (
            ("ford pinto", 20), ("a car whose name is long", 30), ("bmw 2002", 25.5), ("fiat 124b", 19),
            ("vw rabbit", 1), ("vw rabbit", 2), ("audi fox", 3), ("saab 99le", 4),
            ("opel manta", None), ("toyota corona", 5), ("datsun 710", 6), ("subaru", 7), ("dodge colt", 8),
        )
    ],
    "barley.json": [
        {"yield": value, "variety": "Trebi", "year": year, "site": site}
        for year, site, value in (
            (1931, "Morris", 10), (1932, "Morris", 20.126), (1931, "Duluth", 30.333), (1932, "Duluth", 40)
        )
    ],
    "iowa-electricity.csv": [{"year": "2001-01-01", "source": "Wind", "net_generation": 0}],
    "crimea.json": [{"date": "1854-04-01", "wounds": 0, "other": 110, "disease": 95}],
    "us-employment.csv": [
        {"month": f"2006-{month:02}-01", **{sector: 100 * month + n for n, sector in enumerate(SECTORS)}}
        for month in range(1, 8)
    ],
    "wheat.json": [
        {"year": str(1565 + 5 * number), "wheat": 41 + number, **({"wages": 5.25} if number < 5 else {})}
        for number in range(11)
    ],
    "driving.json": [{"year": 1956 + number, "miles": 3675 + number, "gas": 2.4 - number / 100} for number in range(5)],
    "seattle-weather.csv": [{"date": f"{day:%Y/%m/%d}", "temp_max": -day.day} for day in DAYS],
    "ohlc.json": [{"date": str(day), "close": 20 + day.day % 3} for day in DAYS if day.day != 8],
}  # fmt: skip


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """vega-datasets' layout, with a few rows in each table, and a cache folder of its own."""
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "_data"
    folder.mkdir()
    for name, rows in TABLES.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            if name.endswith(".json"):
                json.dump(rows, file)
            else:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
    return tmp_path


def everything(root: Path | None = None) -> dict[str, Sample]:
    """All samples by id."""
    samples = [row for split in SPLITS for row in vega_charts.read("charts", split, root)]
    assert all(isinstance(sample, Sample) for sample in samples)
    assert len({sample.id for sample in samples}) == len(samples)
    return {sample.id: sample for sample in samples}


def asked(samples: dict[str, Sample], chart: str) -> dict[str, tuple[str, str]]:
    """What is asked about a chart, by kind: question and answer."""
    found = {}
    for name, sample in samples.items():
        if name.startswith(f"{chart}-"):
            assert sample.references == (sample.turns[-1].text,)
            found[name.removeprefix(f"{chart}-")] = (sample.prompt, sample.references[0])
    return found


def refused(split: str, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(vega_charts.read("charts", split, root))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_bars_are_asked_for_a_value_the_extremes_and_their_number(tables):
    assert asked(everything(tables), "stocks-0") == {
        "value": ("What is the value of A?", "39.81"),
        "highest": ("Which one has the highest value?", "B"),
        "lowest": ("Which one has the lowest value?", "A"),
        "count": ("How many bars are there?", "2"),
    }


def test_where_two_values_tie_as_they_are_shown_nobody_is_asked_which_is_higher(tables):
    assert asked(everything(tables), "stocks-1") == {  # 7, 7 and 6.999, which shows as 7; it begins with B
        "value": ("What is the value of B?", "7"),
        "count": ("How many bars are there?", "3"),
    }


def test_groups_are_rows_of_the_same_variety_and_year_and_numbers_have_two_decimals(tables):
    samples = everything(tables)
    assert asked(samples, "barley-0") == {
        "value": ("What is the value of Morris?", "10"),
        "highest": ("Which one has the highest value?", "Duluth"),
        "lowest": ("Which one has the lowest value?", "Morris"),
        "count": ("How many bars are there?", "2"),
    }
    assert asked(samples, "barley-1")["value"] == ("What is the value of Duluth?", "40")
    assert asked(samples, "electricity-0") == {
        "value": ("What is the value of Wind?", "0"),
        "highest": ("Which one has the highest value?", "Wind"),
        "lowest": ("Which one has the lowest value?", "Wind"),
        "count": ("How many bars are there?", "1"),
    }


def test_columns_of_one_row(tables):
    samples = everything(tables)
    assert asked(samples, "deaths-0") == {
        "value": ("What is the value of wounds?", "0"),
        "highest": ("Which one has the highest value?", "other"),
        "lowest": ("Which one has the lowest value?", "wounds"),
        "count": ("How many bars are there?", "3"),
    }
    # Each third month, of five sectors, three and four by turns; each begins with the next label.
    assert [asked(samples, f"jobs-{number}")["count"][1] for number in range(3)] == ["5", "3", "4"]
    assert "jobs-3-count" not in samples
    assert asked(samples, "jobs-0")["highest"][1] == "other services"
    assert asked(samples, "jobs-1")["value"] == ("What is the value of retail trade?", "406")
    assert asked(samples, "jobs-2")["value"] == ("What is the value of financial activities?", "710")


def test_three_cars_four_and_five_by_turns_each_a_name_of_its_own(tables):
    samples = everything(tables)
    assert asked(samples, "cars-0") == {
        "value": ("What is the value of ford pinto?", "20"),
        "highest": ("Which one has the highest value?", "bmw 2002"),
        "lowest": ("Which one has the lowest value?", "fiat 124b"),
        "count": ("How many bars are there?", "3"),
    }
    # Four with one name twice, and five with one unknown, make no chart.
    assert not [name for name in samples if name.startswith("cars-1-")]


def test_lines_of_years_are_asked_for_a_value_alone(tables):
    samples = everything(tables)
    assert asked(samples, "wheat-0") == {"value": ("What is the value at 1565?", "41")}
    assert asked(samples, "wheat-1") == {"value": ("What is the value at 1590?", "46")}
    assert asked(samples, "wages-0") == {"value": ("What is the value at 1565?", "5.25")}
    assert asked(samples, "miles-0") == {"value": ("What is the value at 1956?", "3675")}
    assert asked(samples, "gas-0") == {"value": ("What is the value at 1956?", "2.4")}
    assert not {"wheat-2-value", "wages-1-value", "miles-1-value"} & set(samples)


def test_lines_of_weeks_run_from_monday_to_friday_and_need_every_day(tables):
    samples = everything(tables)
    assert asked(samples, "weather-0") == {
        "value": ("What is the value at Mon?", "-6"),
        "highest": ("Where is the highest value?", "Mon"),
        "lowest": ("Where is the lowest value?", "Fri"),
    }
    assert not [name for name in samples if name.startswith(("weather-1", "volatility"))]


def bars(image: Path) -> list[tuple[int, int]]:
    """The (top, length) of each coloured bar, in pixels."""
    pixels = np.asarray(Image.open(image), dtype=int)
    coloured = pixels.max(axis=2) - pixels.min(axis=2) > 60  # text is grey
    rows = np.flatnonzero(coloured.any(axis=1))
    tops = [row for row in rows if row - 1 not in rows]
    return [(int(top), int(coloured[top].sum())) for top in tops]


def test_bars_are_as_long_as_their_values_and_one_below_the_other(tables):
    samples = everything(tables)
    [(first, short), (second, long)] = bars(samples["stocks-0-value"].images[0])
    assert short / long == pytest.approx(39.81 / 40.5, abs=0.01)
    assert long > 100
    assert second - first == pytest.approx((256 - 34) / 2, abs=1)
    # Jobs begin with their second label at the second chart: retail trade, government, durable goods.
    lengths = [length for _, length in bars(samples["jobs-1-value"].images[0])]
    assert [length / lengths[1] for length in lengths] == pytest.approx([406 / 407, 1, 405 / 407], abs=0.01)


def test_a_line_goes_through_its_values(tables):
    sample = everything(tables)["weather-0-value"]
    pixels = np.asarray(Image.open(sample.images[0]), dtype=int)
    coloured = pixels.max(axis=2) - pixels.min(axis=2) > 60
    heights = [np.flatnonzero(coloured[:, 32 + 48 * place]).mean() for place in range(5)]
    assert np.diff(heights) == pytest.approx([25, 25, 25, 25], abs=3)  # it falls by one degree a day


def test_pictures_are_of_256_pixels_named_by_their_chart_and_drawn_once(tables):
    samples = everything(tables)
    image = samples["stocks-0-value"].images[0]
    assert {samples[f"stocks-0-{kind}"].images for kind in ("highest", "lowest", "count")} == {(image,)}
    assert image.name == "stocks-0.png"
    assert image.parent.parent == tables / "cache" / "drawn"
    with Image.open(image) as opened:
        assert (opened.size, opened.mode) == ((256, 256), "RGB")
    drawn, when = image.read_bytes(), image.stat().st_mtime_ns
    assert everything(tables) == samples
    assert image.stat().st_mtime_ns == when
    for file in image.parent.iterdir():
        file.unlink()
    image.parent.rmdir()
    assert everything(tables) == samples
    assert image.read_bytes() == drawn


def test_other_numbers_are_other_pictures_in_another_folder(tables):
    before = everything(tables)["gas-0-value"].images[0]
    rows = [{**row, "gas": row["gas"] + 1} for row in TABLES["driving.json"]]
    (tables / "_data/driving.json").write_text(json.dumps(rows))
    after = everything(tables)["gas-0-value"].images[0]
    assert after.parent != before.parent
    assert after.read_bytes() != before.read_bytes()


def test_the_tables_and_the_drawn_folder_are_watched(tables):
    with watching() as opened:
        [sample, *_] = vega_charts.read("charts", "train", tables)
    assert opened == {*(tables / "_data" / name for name in TABLES), sample.images[0].parent}


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("gas", None, "cannot be read (No such file or directory)"),
        ("gas", '[{"year": 1956}, {', "is cut short or no JSON"),
        ("gas", "[1, 2, 3, 4, 5]", "is not the table of vega-datasets 0.9.0 ('int' object has no attribute 'get')"),
        ("gas", json.dumps([{"miles": "far", "year": 1}] * 5), "0.9.0 (could not convert string to float: 'far')"),
        ("deaths", '[{"date": "1854-04-01", "wounds": 0}]', "0.9.0 ('other' is missing)"),
        ("deaths", '[{"date": "April 1854"}]', "is not the table of vega-datasets 0.9.0 ("),
        ("stocks", "symbol,date\nA,Jan 1 2000\n", "0.9.0 ('price' is missing)"),
        ("stocks", "symbol,date,price\nA\n", "is not the table of vega-datasets 0.9.0 ("),
    ],
)
def test_a_table_that_is_another_one(tables, file, content, reason):
    source = tables / "_data" / {"gas": "driving.json", "deaths": "crimea.json", "stocks": "stocks.csv"}[file]
    source.unlink()
    if content is not None:
        source.write_text(content)
    message = refused("train", tables)
    assert message.startswith(f"task charts: {source} ")
    assert reason in message


def test_an_unknown_split(tables):
    assert refused("dev", tables) == "task charts: vega_charts has no split 'dev'; allowed: train, validation, test"
    assert vega_charts.READER.splits == SPLITS
    assert not vega_charts.READER.needs_path


@pytest.fixture(scope="module")
def packaged() -> dict[str, list[Sample]]:
    return {split: list(vega_charts.read("charts", split)) for split in SPLITS}


def test_the_packaged_tables(packaged):
    assert {split: len(samples) for split, samples in packaged.items()} == {
        "train": 1501, "validation": 177, "test": 130,
    }  # fmt: skip
    images = {split: {sample.images[0] for sample in samples} for split, samples in packaged.items()}
    assert {split: len(found) for split, found in images.items()} == {"train": 460, "validation": 53, "test": 45}
    assert not images["train"] & (images["validation"] | images["test"])
    assert not images["validation"] & images["test"]
    samples = [sample for split in packaged.values() for sample in split]
    assert len({sample.id for sample in samples}) == len(samples)
    counts = Counter(sample.references[0] for sample in samples if sample.id.endswith("-count"))
    assert set(counts) == {"3", "4", "5", "6"}
    assert max(counts.values()) < 0.5 * sum(counts.values())
    cars = [float(sample.references[0]) for sample in samples if sample.id.startswith("cars-") and "value" in sample.id]
    miles, horses, pounds = ([v for v in cars if v in range(*r)] for r in ((10, 45), (45, 300), (1500, 6000)))
    assert min(len(miles), len(horses), len(pounds)) > 10


def test_the_packaged_numbers_are_those_of_the_tables(packaged):
    folder = fetch(VEGA) / "vega_datasets" / "_data"
    with (folder / "stocks.csv").open(newline="") as file:
        prices = {}
        for row in csv.DictReader(file):
            prices.setdefault(row["date"], {})[row["symbol"]] = float(row["price"])
    months = list(prices)
    checked = 0
    for sample in (sample for samples in packaged.values() for sample in samples):
        table, number, kind = sample.id.split("-")
        if table == "stocks":
            month = prices[months[int(number)]]
            expected = {
                "highest": max(month, key=month.__getitem__),
                "lowest": min(month, key=month.__getitem__),
                "count": str(len(month)),
            }
            if kind == "value":
                symbol = sample.prompt.removeprefix("What is the value of ").removesuffix("?")
                assert float(sample.references[0]) == month[symbol]
            else:
                assert sample.references == (expected[kind],)
            checked += 1
    assert checked == 123 * 4


def test_nothing_runs_off_any_picture(packaged):
    for image in sorted({sample.images[0] for samples in packaged.values() for sample in samples}):
        with Image.open(image) as opened:
            pixels = np.asarray(opened)
        edge = np.concatenate([pixels[:3].reshape(-1, 3), pixels[:, :3].reshape(-1, 3), pixels[:, -3:].reshape(-1, 3)])
        assert (edge == 255).all(), image
        assert (pixels[-1] == 255).all(), image

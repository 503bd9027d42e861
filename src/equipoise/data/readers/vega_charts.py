"""Questions on charts of real numbers: the tables of vega-datasets (VanderPlas and others), drawn here; MIT, packaged
as `vega-datasets` 0.9.0.

Layout: `_data/NAME.csv` and `_data/NAME.json`, of which ten are read. **The numbers are real, the charts' looks and the
questions are not**: each chart shows a few numbers of a table, rounded to two decimals, as bars or as a line, with each
value written beside its bar or point, and the questions come from templates:

| question | answer |
| --- | --- |
| What is the value of LABEL? (bars), What is the value at LABEL? (lines) | a number |
| Which one has the highest (lowest) value?, Where is the highest (lowest) value? | a label |
| How many bars are there? | a number |

No number of a table is in two charts, and charts of the same rows are in one split, which is drawn from their place in
the table. Where two values tie, nobody is asked which is higher; neither where labels are years, for the metric,
relaxed accuracy, takes one year for another.

| split | charts | questions |
| --- | --- | --- |
| train | 460 | 1,501 |
| validation | 53 | 177 |
| test | 45 | 130 |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageDraw

from equipoise.data.readers.drawing import INK, SIDE, canvas, drawn, fitting, font
from equipoise.data.readers.files import csv_rows, json_items
from equipoise.data.readers.reader import Flaw, Reader, check_split
from equipoise.data.readers.splits import SPLITS, split_of
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError
from equipoise.packages import VEGA, fetch

Style = Literal["bars", "line"]
Rows = list[dict[str, Any]]
# For each chart: a key of the rows it shows, a title, and labels with their numbers.
Slices = Iterator[tuple[str, str, list[tuple[str, Any]]]]
COLOURS = ((31, 119, 180), (214, 92, 28), (44, 140, 60), (190, 48, 52), (128, 92, 170), (20, 140, 150))
SECTORS = (
    ("construction", "manufacturing", "information", "utilities", "other_services"),
    ("durable_goods", "retail_trade", "government"),
    ("nondurable_goods", "wholesale_trade", "financial_activities", "mining_and_logging"),
)
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri")  # date's own names change with the locale
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
FIGURES = (("Miles_per_Gallon", "Miles per gallon"), ("Horsepower", "Horsepower"), ("Weight_in_lbs", "Weight in lb"))
LONGEST_NAME = 20
TEXT = 22  # pixels: 11 where the embedded tower sees it
MARGIN = 8
TOP = 34  # below the title
CEILING, FLOOR = 76, 176  # of a line


@dataclass(frozen=True)
class Table:
    """One table, or one column of it.

    Attributes:
        file: its name below `_data`.
        style: how its charts are drawn.
        slices: cuts its rows into charts.
    """

    file: str
    style: Style
    slices: Callable[[Rows], Slices]


@dataclass(frozen=True)
class Chart:
    """What one chart shows."""

    style: Style
    title: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    colour: tuple[int, int, int]


def _grouped(rows: Rows, by: Callable[[dict[str, Any]], str], label: str, value: str, title: str) -> Slices:
    """The rows that something is the same of."""
    groups: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[by(row)].append((row[label], row[value]))
    for key, points in groups.items():
        yield key, f"{title}, {key}", points


def _columns(rows: Rows, groups: tuple[tuple[str, ...], ...], when: str, title: str) -> Slices:
    """One row each, of one group of its columns after the other."""
    for number, row in enumerate(rows):
        month = _month(row[when])
        columns = groups[number % len(groups)]
        yield month, f"{title}, {month}", [(column.replace("_", " "), row[column]) for column in columns]


def _runs(rows: Rows, label: str, value: str, title: str) -> Slices:
    """Five rows after one another."""
    for start in range(0, len(rows) - 4, 5):
        run = rows[start : start + 5]
        if all(row.get(value) is not None for row in run):
            yield str(start), title, [(str(row[label]), row[value]) for row in run]


def _weeks(rows: Rows, value: str, title: str) -> Slices:
    """Monday to Friday, where the table has them all."""
    weeks: dict[date, list[tuple[str, Any]]] = defaultdict(list)
    for row in rows:
        day = date.fromisoformat(row["date"].replace("/", "-"))
        if day.weekday() < 5:
            weeks[day - timedelta(days=day.weekday())].append((WEEKDAYS[day.weekday()], row[value]))
    for monday, points in weeks.items():
        if len(points) == 5:
            yield str(monday), f"{title}, {monday.day} {_month(str(monday))}", points


def _cars(rows: Rows) -> Slices:
    """Three, four and five cars by turns, and one of three figures by turns."""
    rows = [row for row in rows if len(row["Name"]) <= LONGEST_NAME]
    start = 0
    for number in count():
        run = rows[start : start + 3 + number % 3]
        if not run:
            return
        column, title = FIGURES[number // 3 % 3]
        points = {row["Name"]: row[column] for row in run if row[column] is not None}
        if len(points) == 3 + number % 3:
            yield str(start), title, list(points.items())
        start += len(run)


def _month(day: str) -> str:
    """Mar 2004, of 2004-03-01."""
    year, month, _ = day.split("-")
    return f"{MONTHS[int(month) - 1]} {year}"


TABLES = {
    "stocks": Table(
        "stocks.csv",
        "bars",
        partial(
            _grouped, by=lambda row: row["date"].replace(" 1 ", " "), label="symbol", value="price", title="Price in $"
        ),
    ),
    "cars": Table("cars.json", "bars", _cars),
    "barley": Table(
        "barley.json",
        "bars",
        partial(_grouped, by=lambda row: f"{row['variety']} {row['year']}", label="site", value="yield", title="Yield"),
    ),
    "electricity": Table(
        "iowa-electricity.csv",
        "bars",
        partial(
            _grouped, by=lambda row: row["year"][:4], label="source", value="net_generation", title="Power in Iowa"
        ),
    ),
    "deaths": Table(
        "crimea.json", "bars", partial(_columns, groups=(("wounds", "other", "disease"),), when="date", title="Deaths")
    ),
    # Jobs change slowly: each third month is enough.
    "jobs": Table(
        "us-employment.csv",
        "bars",
        lambda rows: _columns(rows[::3], groups=SECTORS, when="month", title="Jobs, thousands"),
    ),
    "wheat": Table("wheat.json", "line", partial(_runs, label="year", value="wheat", title="Price of wheat")),
    "wages": Table("wheat.json", "line", partial(_runs, label="year", value="wages", title="Weekly wages")),
    "miles": Table("driving.json", "line", partial(_runs, label="year", value="miles", title="Miles a person")),
    "gas": Table("driving.json", "line", partial(_runs, label="year", value="gas", title="Price of gas in $")),
    "weather": Table("seattle-weather.csv", "line", partial(_weeks, value="temp_max", title="High in °C")),
    "volatility": Table("ohlc.json", "line", partial(_weeks, value="close", title="VIX")),
}


def read(task: str, split: str, path: Path | None = None) -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `_data/`; the packaged copy when None.

    Raises:
        DataError: an unknown split, or a table that is not vega-datasets'.
    """
    check_split(task, "vega_charts", split, SPLITS)
    folder = (path if path is not None else fetch(VEGA) / "vega_datasets") / "_data"
    charts: dict[str, Chart] = {}
    splits: dict[str, str] = {}
    for name, table in TABLES.items():
        for number, (key, chart) in enumerate(_charts(task, folder, table)):
            charts[f"{name}-{number}"] = chart
            splits[f"{name}-{number}"] = split_of(f"{table.file}/{key}")
    images = drawn("vega_charts", charts, draw)
    for name, chart in charts.items():
        if splits[name] == split:
            for kind, question, answer in _questions(chart, int(name.rpartition("-")[2])):
                yield Sample(
                    id=f"{name}-{kind}",
                    task=task,
                    turns=exchange(question, answer),
                    images=(images / f"{name}.png",),
                    references=(answer,),
                )


READER = Reader(read, SPLITS, needs_path=False)


def _charts(task: str, folder: Path, table: Table) -> Iterator[tuple[str, Chart]]:
    """The charts of a table, each with the key of its rows; bars begin with another label each time."""
    source = folder / table.file
    csv = source.suffix == ".csv"
    rows = [row for _, row in csv_rows(task, source, ())] if csv else list(json_items(task, source))
    try:
        slices = [
            (key, title, [(label, round(float(value), 2)) for label, value in points])
            for key, title, points in table.slices(rows)
        ]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"task {task}: {source} is not the table of vega-datasets 0.9.0 ({reason})") from error
    for number, (key, title, points) in enumerate(slices):
        if table.style == "bars":
            first = number % len(points)
            points = points[first:] + points[:first]
        labels, values = zip(*points, strict=True)
        yield key, Chart(table.style, title, labels, values, COLOURS[number % len(COLOURS)])


def _questions(chart: Chart, number: int) -> Iterator[tuple[str, str, str]]:
    """What is asked about a chart: (kind, question, answer) each; `number` chooses whose value is asked for."""
    asked = number // len(chart.labels) % len(chart.labels)
    bars = chart.style == "bars"
    yield "value", f"What is the value {'of' if bars else 'at'} {chart.labels[asked]}?", _text(chart.values[asked])
    if not chart.labels[0].isdecimal():
        for kind, extreme in (("highest", max(chart.values)), ("lowest", min(chart.values))):
            if chart.values.count(extreme) == 1:
                where = f"Which one has the {kind} value?" if bars else f"Where is the {kind} value?"
                yield kind, where, chart.labels[chart.values.index(extreme)]
    if bars:
        yield "count", "How many bars are there?", str(len(chart.labels))


def _text(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def draw(chart: Chart) -> Image.Image:
    """Draw one chart: bars that lie, each below its label, or a line with its labels at the foot."""
    image, pen = canvas()
    pen.text((MARGIN, 4), chart.title, INK, fitting(chart.title, SIDE - 2 * MARGIN, TEXT))
    (_draw_bars if chart.style == "bars" else _draw_line)(pen, chart)
    return image


def _draw_bars(pen: ImageDraw.ImageDraw, chart: Chart) -> None:
    height = (SIDE - TOP) / len(chart.labels)
    small = font(min(TEXT, int(0.45 * height)))
    longest = SIDE - 3 * MARGIN - max(small.getlength(_text(value)) for value in chart.values)
    for row, (label, value) in enumerate(zip(chart.labels, chart.values, strict=True)):
        top, middle = TOP + row * height, TOP + (row + 0.5) * height
        pen.text((MARGIN, middle), label, INK, small, anchor="ls")
        end = MARGIN + longest * value / (max(chart.values) or 1)
        pen.rectangle((MARGIN, middle + 6, end, top + height - 4), chart.colour)
        pen.text((end + MARGIN, middle + height / 4), _text(value), INK, small, anchor="lm")


def _draw_line(pen: ImageDraw.ImageDraw, chart: Chart) -> None:
    low, high = min(chart.values), max(chart.values)
    step = (SIDE - 2 * MARGIN) / len(chart.labels)
    points = [
        (MARGIN + (place + 0.5) * step, FLOOR - (FLOOR - CEILING) * (value - low) / ((high - low) or 1))
        for place, value in enumerate(chart.values)
    ]
    pen.line((MARGIN, FLOOR + 40, SIDE - MARGIN, FLOOR + 40), INK, 2)
    pen.line(points, chart.colour, 4)
    for x, y in points:
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), chart.colour)
    for place, ((x, y), label, value) in enumerate(zip(points, chart.labels, chart.values, strict=True)):
        beside = [points[other][1] for other in (place - 1, place + 1) if 0 <= other < len(points)]
        above = y <= sum(beside) / len(beside)  # away from the line
        number = fitting(_text(value), step - 2, TEXT)
        pen.text((x, y - 20 if above else y + 20), _text(value), INK, number, "mm", stroke_width=3, stroke_fill="white")
        pen.text((x, SIDE - 8), label, INK, fitting(label, step - 2, TEXT), anchor="ms")

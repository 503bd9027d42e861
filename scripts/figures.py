"""Draw the documentation's figures, which are the report's own, as PNG; headless Chromium photographs them.

python scripts/figures.py kappa runs/demo docs/kappa.png
python scripts/figures.py balance runs/embedded-mixture-balance docs
python scripts/figures.py page docs/reports/demo.html docs/report-demo.png 1150
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go

from equipoise.report import kappa_figure
from equipoise.report.balance import figures
from equipoise.report.balance.view import view_balance
from equipoise.training.run_directory import RunDirectory


def photograph(figure: go.Figure, target: Path, width: int, height: int, scale: int = 1) -> None:
    figure.update_layout(width=width, height=height, paper_bgcolor="white", plot_bgcolor="white")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False, "showSendToCloud": False})
        photograph_page(page, target, width + 16, height + 16, scale)


def photograph_page(page: Path, target: Path, width: int, height: int, scale: int = 1) -> None:
    """The top of a page, as a window of that size shows it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no Chromium found on PATH")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--hide-scrollbars", f"--user-data-dir={profile}", f"--window-size={width},{height}",
            f"--force-device-scale-factor={scale}",
            "--virtual-time-budget=5000", f"--screenshot={target.resolve()}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    print(target)


def kappa(demo: Path, target: Path) -> None:
    methods = sorted((path.parent for path in demo.glob("*/recipe.yaml")), key=lambda path: path.stat().st_ctime)
    photograph(kappa_figure([RunDirectory.open(path) for path in methods]), target, 1000, 460)


def balance(results: Path, folder: Path) -> None:
    view = view_balance(results)
    photograph(figures.contributions(view), folder / "contributions.png", 620, 320)
    photograph(figures.weights(view), folder / "weights.png", 900, 400)
    by_data = figures.score_by_data(view, view.settings["mini_fraction"])
    assert by_data is not None
    photograph(by_data, folder / "score-by-data.png", 900, 430)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["kappa", runs, target]:
            kappa(Path(runs), Path(target))
        case ["balance", results, folder]:
            balance(Path(results), Path(folder))
        case ["page", report, target, height]:
            photograph_page(Path(report), Path(target), 1100, int(height))
        case _:
            sys.exit(__doc__)

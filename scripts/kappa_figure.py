"""Draw kappa of a demo's runs as a PNG for the README: `python scripts/kappa_figure.py runs/demo docs/kappa.png`

The figure is the report's own; headless Chromium photographs it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from equipoise.report import kappa_figure
from equipoise.training.run_directory import RunDirectory

demo, target = Path(sys.argv[1]), Path(sys.argv[2])
browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if browser is None:
    sys.exit("no Chromium found on PATH")
methods = sorted((path.parent for path in demo.glob("*/recipe.yaml")), key=lambda path: path.stat().st_ctime)
figure = kappa_figure([RunDirectory.open(path) for path in methods])
figure.update_layout(width=1000, height=460, paper_bgcolor="white", plot_bgcolor="white")
with tempfile.TemporaryDirectory() as folder:
    page = Path(folder) / "figure.html"
    figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False, "showSendToCloud": False})
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            "--window-size=1016,476",
            "--virtual-time-budget=5000",
            f"--screenshot={target.resolve()}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
    )
print(target)

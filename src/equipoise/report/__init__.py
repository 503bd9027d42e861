"""One self-contained HTML report of runs, side by side, or of a balance; and the verdict it opens with."""

from equipoise.report.balance import build_balance_report
from equipoise.report.figures import kappa_figure
from equipoise.report.folders import report_on
from equipoise.report.page import build_report
from equipoise.report.terminal import print_summary
from equipoise.report.verdict import Verdict, diagnose

__all__ = [
    "Verdict",
    "build_balance_report",
    "build_report",
    "diagnose",
    "kappa_figure",
    "print_summary",
    "report_on",
]

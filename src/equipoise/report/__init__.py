"""One self-contained HTML report of one or several runs, and the verdict it opens with."""

from equipoise.report.figures import kappa_figure
from equipoise.report.page import build_report
from equipoise.report.terminal import print_summary
from equipoise.report.verdict import Verdict, diagnose

__all__ = ["Verdict", "build_report", "diagnose", "kappa_figure", "print_summary"]

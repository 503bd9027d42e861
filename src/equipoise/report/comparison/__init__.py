"""The report of a comparison: what `equipoise compare --out FOLDER` found, drawn in one HTML file."""

from equipoise.report.comparison.page import build_comparison_report

__all__ = ["build_comparison_report"]

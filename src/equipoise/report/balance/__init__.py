"""The report of a balance: what `equipoise balance --out FOLDER` found, drawn in one HTML file."""

from equipoise.report.balance.page import build_balance_report

__all__ = ["build_balance_report"]

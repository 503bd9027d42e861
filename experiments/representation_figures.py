"""The figure of `experiments.representations`: probes and CKA from the encoder's side to the LLM's end, by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from equipoise.report.canvas import AXIS, dress
from equipoise.report.palette import colour, dash
from scripts.figures import photograph

PANELS = {"probe": "accuracy of a linear probe", "cka_untuned": "CKA with the untuned model"}


def figure(rows: Sequence[Mapping[str, Any]], majority: float) -> go.Figure:
    """A panel for probes, with the majority's line, and one for CKA; a line a method."""
    drawn = make_subplots(rows=1, cols=len(PANELS), horizontal_spacing=0.1)
    dress(drawn, 380)
    for column, (key, title) in enumerate(PANELS.items(), start=1):
        for paint, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            own = [row for row in rows if row["method"] == method and row[key] is not None]
            spreads = [row["probe_std"] or 0.0 for row in own] if key == "probe" else None
            drawn.add_trace(
                go.Scatter(
                    x=[row["place"] for row in own],
                    y=[row[key] for row in own],
                    error_y={"array": spreads, "thickness": 1, "width": 3} if spreads else None,
                    name=method,
                    mode="lines+markers",
                    line={"color": colour(paint), "dash": dash(paint), "width": 2.2},
                    legendgroup=method,
                    showlegend=column == 1,
                ),
                row=1,
                col=column,
            )
        drawn.update_yaxes(title_text=title, row=1, col=column)
    drawn.add_hline(y=majority, line={"color": "#808890", "width": 1.2, "dash": "dot"}, row=1, col=1)
    drawn.update_xaxes(**AXIS, showgrid=False)
    drawn.update_yaxes(**AXIS, showgrid=True)
    return drawn


def draw(rows: Sequence[Mapping[str, Any]], majority: float, target: Path) -> None:
    """Write the figure as PNG."""
    photograph(figure(rows, majority), target, 1000, 420)

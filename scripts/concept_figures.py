"""Draw the figures of docs/concepts.md as PNG; headless Chromium photographs them.

    python scripts/concept_figures.py docs            # all of them
    python scripts/concept_figures.py docs loops      # one

`step` trains the embedded vision stack for a few steps (a minute on two cores), `kinds` and `loops` are simulated,
`contribution` computes from the table of scores below. Each prints the numbers that the page quotes.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from dynamics import simulated
from figures import photograph
from plotly.subplots import make_subplots

from equipoise.report import diagnose
from equipoise.report.palette import LIGHT
from equipoise.tasks.contribution import balance_tasks

LLM_COLOUR, ENCODER_COLOUR, INK = LIGHT[0], LIGHT[1], "#333333"
#: Validation scores after each run: the example of docs/cotbal.md.
SCORES = {
    "mini": {"vqa": 0.50, "caption": 0.80, "grounding": 0.20},
    "vqa+mini": {"vqa": 0.60, "caption": 0.85, "grounding": 0.25},
    "caption+mini": {"vqa": 0.52, "caption": 1.00, "grounding": 0.22},
    "grounding+mini": {"vqa": 0.51, "caption": 0.82, "grounding": 0.60},
}
STEPS, BATCH = 8, 8


def step() -> go.Figure:
    """One answer's first token before an optimizer step, with the LLM's part of it alone, and with the projector's."""
    from equipoise.data.collate import Collator
    from equipoise.data.readers import easy_vqa
    from equipoise.models import loading
    from equipoise.models.families import family_of
    from equipoise.modules.partition import partition
    from equipoise.recipe import Model

    torch.manual_seed(0)
    settings = Model(path="embedded:smol-vlm")
    model, processor = loading.load(settings), loading.load_processor(settings)
    division = partition(model, None, family_of(model).paths(model))
    optimizer = torch.optim.AdamW([parameter for _, parameter in division.parameters()], lr=2e-4, weight_decay=0.0)
    collate, draw = Collator(processor), random.Random(0)
    samples = [sample for sample in easy_vqa.read("vqa", "train") if sample.references[0] not in ("yes", "no")]
    for _ in range(STEPS):
        before = {name: parameter.detach().clone() for name, parameter in division.parameters()}
        batch = collate(draw.sample(samples, BATCH))
        model.train()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = {name: parameter.detach().clone() for name, parameter in division.parameters()}

    def predicted(*moved: str) -> torch.Tensor:
        """log P of each sample's first answer token, with the step's update in these modules alone."""
        for module in division.trainable.values():
            for name, parameter in module.trainable.items():
                parameter.data.copy_((after if module.name in moved else before)[name])
        model.eval()
        with torch.no_grad():
            logits = model(**batch).logits
        first = (batch["labels"] != -100).int().argmax(dim=1) - 1
        return logits[torch.arange(len(first)), first].log_softmax(dim=-1).double()

    old, by_llm, by_projector = predicted(), predicted("llm"), predicted("projector")
    drifts = {name: (old.exp() * (old - new)).sum(-1) for name, new in (("llm", by_llm), ("projector", by_projector))}
    shown = int((drifts["llm"] + drifts["projector"]).argmax())
    tokens = old[shown].topk(5).indices
    words = [processor.tokenizer.decode([token]) for token in tokens]
    d_llm, d_projector = (float(drifts[name][shown]) for name in ("llm", "projector"))
    print(f"step {STEPS}: d_llm {d_llm:.2e}, d_projector {d_projector:.2e}, kappa {d_llm / d_projector:.2f}")
    print("batch:", {name: f"{float(drift.mean()):.2e}" for name, drift in drifts.items()})
    figure = go.Figure()
    bars = (("before the step", old, "#9a9a9a"), (f"LLM alone: drift {d_llm:.2f}", by_llm, LLM_COLOUR),
            (f"projector alone: drift {d_projector:.2f}", by_projector, ENCODER_COLOUR))  # fmt: skip
    for name, log_probs, colour in bars:
        heights = log_probs[shown, tokens].exp().tolist()
        figure.add_bar(x=words, y=heights, name=name, marker_color=colour, text=[f"{h:.2f}" for h in heights])
    figure.update_traces(textangle=0, textposition="outside", textfont_size=13)
    figure.update_layout(barmode="group", yaxis_title="probability of the answer's first token")
    return figure


def kinds() -> go.Figure:
    """Three simulated runs, each named by the code that names yours."""
    noise = random.Random(0)
    runs = {
        "balanced": [0.35 * noise.gauss(0, 1) for _ in range(60)],
        "biased": [math.log(8) + 0.35 * noise.gauss(0, 1) for _ in range(60)],
        "oscillating": [math.log(6) * math.sin(0.9 * step) + 0.35 * noise.gauss(0, 1) for step in range(60)],
    }
    figure = make_subplots(rows=1, cols=3, shared_yaxes=True, horizontal_spacing=0.03)
    for column, values in enumerate(runs.values(), start=1):
        lines = [{"step": step, "kappa": math.exp(v), "drift/projector": 1e-4, "drift/llm": 1e-4 * math.exp(v)}
                 for step, v in enumerate(values, start=1)]  # fmt: skip
        verdict = diagnose(lines)
        print(verdict.name, verdict.kappa, verdict.std_log_kappa)
        figure.add_scatter(x=list(range(1, 61)), y=[math.exp(v) for v in values], row=1, col=column,
                           line_color=LLM_COLOUR, showlegend=False)  # fmt: skip
        figure.add_hrect(y0=1 / 3, y1=3, fillcolor="#009e73", opacity=0.12, line_width=0, row=1, col=column)
        figure.add_annotation(text=f"<b>{verdict.name}</b>", xref="x domain", yref="y domain", x=0.5, y=1.08,
                              showarrow=False, row=1, col=column, font_size=15)  # fmt: skip
        figure.update_xaxes(title="step", dtick=20, row=1, col=column)
    figure.update_yaxes(type="log", range=[-1.2, 1.6], dtick=1)
    figure.update_yaxes(title="kappa", row=1, col=1)
    return figure


def loops() -> go.Figure:
    """kappa from an imbalance of 27, without balance and under the two controllers; no noise."""
    figure = go.Figure()
    ratio, window = 27.0, 20
    curves = {
        "constant": [math.log(ratio)] * 140,
        "commit-clr: settles at 3": simulated("pooled", ratio, window, 140),
        "with servo: at 1": simulated("servo", ratio, window, 140),
    }
    for (name, values), colour in zip(curves.items(), ("#9a9a9a", LIGHT[0], LIGHT[1]), strict=True):
        print(name, f"ends at {math.exp(values[-1]):.3f}")
        figure.add_scatter(x=list(range(1, 141)), y=[math.exp(v) for v in values], name=name, line_color=colour)
    figure.add_hline(y=1, line_dash="dot", line_color=INK)
    figure.update_layout(xaxis_title="measurement", yaxis={"title": "kappa", "type": "log", "dtick": 1})
    return figure


def contribution() -> go.Figure:
    """The gain that each task's data gives captions, over the gain that captions' own data gives."""
    found = balance_tasks(SCORES, 0.5, 0.5, "error").as_dict()
    task = "caption"
    place = found["tasks"].index(task)
    figure = go.Figure()
    base = SCORES["mini"][task]
    for number, giver in enumerate(("vqa", "grounding", "caption")):
        score = SCORES[f"{giver}+mini"][task]
        share = found["contributions"][found["tasks"].index(giver)][place]
        print(giver, score, share)
        label = f"gain {score - base:.2f}: contribution {share:.2f}"
        figure.add_bar(y=[f"all of {giver}"], x=[score - base], base=base, orientation="h", showlegend=False,
                       marker_color=LIGHT[number], text=label, textposition="outside")  # fmt: skip
    figure.add_vline(x=base, line_color=INK, line_dash="dot")
    figure.add_annotation(text="a small subset of every task (mini)", x=base, yref="paper", y=1.12, xanchor="left",
                          showarrow=False)  # fmt: skip
    figure.update_layout(xaxis={"title": f"validation score of {task}", "range": [0.795, 1.09]})
    return figure


FIGURES: dict[str, tuple[Any, int, int]] = {
    "step": (step, 680, 400), "kinds": (kinds, 720, 320), "loops": (loops, 680, 400),
    "contribution": (contribution, 680, 280),
}  # fmt: skip


def main(folder: Path, names: list[str]) -> None:
    for name in names or FIGURES:
        make, width, height = FIGURES[name]
        figure = make()
        figure.update_layout(
            template="plotly_white", font={"family": "sans-serif", "size": 15, "color": INK},
            margin={"l": 70, "r": 20, "t": 40, "b": 60}, legend={"orientation": "h", "y": 1.14},
        )  # fmt: skip
        photograph(figure, folder / f"concept-{name}.png", width, height, scale=2)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])

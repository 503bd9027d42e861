"""The part of a page in which predictions are looked at: a card a question, worst first, of one task or all.

Without a script the cards stand one after the other. The page's script sorts them, searches them and shows a few at a
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equipoise.report.allowed import media_roots
from equipoise.report.inlined import LIMIT, Inliner
from equipoise.report.markup import cut, decimal, safe, swatch, tag
from equipoise.report.palette import LIGHT
from equipoise.report.predictions import Question, TaskPredictions, read_predictions
from equipoise.report.skeleton import missing
from equipoise.report.view import RunView

ANSWER, PROMPT, NAME = 600, 1_000, 80
"""Most letters of a text in a card."""

REFERENCES, MEDIA = 5, 4
"""Most references, and most pictures and clips, of a card."""


def predictions_section(runs: Sequence[RunView], folders: Sequence[Path], room: int = LIMIT, media: bool = True) -> str:
    """Markup of the section; empty where no run has predictions.

    Args:
        folders: each run's `predictions`.
        room: letters that pictures and clips take at most.
        media: whether there are any.
    """
    tasks = read_predictions(folders)
    if not tasks:
        return ""
    inliner = Inliner(room)
    roots = [media_roots(run.settings, folder.parent) for run, folder in zip(runs, folders, strict=True)]
    shown = _media(tasks, inliner, roots) if media else {}
    groups = "".join(_group(task, number, runs, shown) for number, task in enumerate(tasks))
    limit = f"{room / 1e6:.1f} MB"
    left_out = [
        f"Pictures and clips that did not fit into {limit}: {inliner.left_out:,}." if inliner.left_out else "",
        f"Pictures and clips that are not shown: {inliner.hidden:,}." if inliner.hidden else "",
        "" if media else "Pictures and clips are left out (--no-media).",
    ]
    note = "".join(missing(words) for words in left_out if words)
    return _controls(tasks, len(runs) > 1) + note + groups


def _media(
    tasks: Sequence[TaskPredictions], inliner: Inliner, roots: Sequence[Sequence[Path]]
) -> dict[tuple[int, int], str]:
    """Markup of each question's pictures and clips. All tasks' worst questions come first while there is room.

    Args:
        roots: by run, the folders that its files may come from.
    """
    places = [(rank, number) for number, task in enumerate(tasks) for rank in range(len(task.questions))]
    found = {}
    for rank, number in sorted(places):
        question = tasks[number].questions[rank]
        kinds = [(path, "Picture", inliner.picture) for path in question.images]
        kinds += [(path, "Clip", inliner.clip) for path in question.audios]
        about = f"of question {cut(question.identifier, NAME)}"
        within = roots[question.answers[0].run]  # the run that names the files
        parts = [
            make(path, f"{kind} {i} {about}", within) for i, (path, kind, make) in enumerate(kinds[:MEDIA], start=1)
        ]
        if len(kinds) > MEDIA:
            parts.append(missing(f"and {len(kinds) - MEDIA} more"))
        found[number, rank] = f'<div class="media">{"".join(parts)}</div>' if parts else ""
    return found


def _controls(tasks: Sequence[TaskPredictions], several: bool) -> str:
    """What the script needs a reader to say; hidden where there is no script."""
    orders = {"worst": "Worst first", "best": "Best first"} | ({"unlike": "Most unlike first"} if several else {})
    buttons = "".join(
        f'<button type="button" data-order="{name}" aria-pressed="{str(name == "worst").lower()}">{words}</button>'
        for name, words in orders.items()
    )
    choices = "".join(f'<option value="{number}">{safe(task.task)}</option>' for number, task in enumerate(tasks))
    task = f'<label>Task <select><option value="">all</option>{choices}</select></label>' if len(tasks) > 1 else ""
    return (
        '<div class="controls" role="group" aria-label="Which predictions are shown, and in which order" hidden>'
        f'<span role="group" aria-label="Order">{buttons}</span>{task}'
        '<label>Find <input type="search" autocomplete="off"></label>'
        '<output class="note"></output></div>\n'
    )


def _group(task: TaskPredictions, number: int, runs: Sequence[RunView], media: dict[tuple[int, int], str]) -> str:
    cards = "".join(
        _card(question, rank, runs, media.get((number, rank), "")) for rank, question in enumerate(task.questions)
    )
    scored = any(question.score is not None for question in task.questions)
    shown, most = len(task.questions), f"{task.asked:,}"
    if shown == task.asked:
        said = f"All {most} questions." if shown > 1 else "One question."
    else:
        kinds = [
            "the worst answered",
            "the best",
            *(["those that the runs answer most unlike"] if len(runs) > 1 else []),
        ]
        which = f": {', '.join(kinds[:-1])} and {kinds[-1]}" if scored else ""
        said = f"{shown:,} of {most} questions{which}."
    metric = next((str(found["metric"]) for run in runs if (found := run.tasks.get(task.task, {})).get("metric")), "")
    if scored and metric:
        said += f" Scores are {metric.replace('_', ' ')}."
    return (
        f'<div class="task" data-task="{number}">{tag("h3", task.task)}{tag("p", said, class_="note")}'
        f'<ol class="cards">\n{cards}</ol></div>\n'
    )


def _card(question: Question, rank: int, runs: Sequence[RunView], media: str) -> str:
    shown = question.references[:REFERENCES]
    references = "".join(_text("dd", reference, ANSWER) for reference in shown) or tag(
        "dd", "not known", class_="missing"
    )
    if len(question.references) > REFERENCES:
        references += tag("dd", f"and {len(question.references) - REFERENCES} more", class_="missing")
    answers = "".join(
        f'<div data-run="{answer.run}"><dt>{_who(runs, answer.run)}{_score(answer.score)}</dt>'
        f"{_text('dd', answer.text, ANSWER)}</div>"
        for answer in question.answers
    )
    numbers = f'data-rank="{rank}" data-spread="{question.spread:.6g}"'
    if question.score is not None:
        numbers += f' data-score="{question.score:.6g}"'
    several = "s" if len(shown) > 1 else ""
    return (
        f'<li {numbers}>{media}<div class="words">{tag("h4", cut(question.identifier, NAME))}'
        f"<dl><div><dt>Prompt</dt>{_text('dd', question.prompt, PROMPT)}</div>"
        f"<div><dt>Reference{several}</dt>{references}</div>{answers}</dl></div></li>\n"
    )


def _who(runs: Sequence[RunView], run: int) -> str:
    return "Prediction" if len(runs) == 1 else swatch(run % len(LIGHT)) + safe(runs[run].label)


def _score(score: float | None) -> str:
    return f' <span class="score">{"no score" if score is None else f"score {decimal(score)}"}</span>'


def _text(name: str, text: str, most: int) -> str:
    """Words of a model or a dataset; in Arabic or Hebrew they run from the right, and nothing else does."""
    return tag(name, cut(text, most), dir="auto") if text.strip() else tag(name, "(empty)", class_="missing")

"""Predictions in the report: which are chosen, what is read of a damaged file, what is inlined."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile
from _html_page import Page
from _synthetic_runs import answered, around, log_lines, write_run
from PIL import Image

from equipoise.report import build_report, inlined, lines, predictions
from equipoise.report.browse import predictions_section
from equipoise.report.inlined import LEAST, LIMIT, SIDE, Inliner
from equipoise.report.markup import cut
from equipoise.report.predictions import EACH, read_predictions
from equipoise.report.view import view_all


def run(tmp_path, name="run", **tasks):
    return write_run(tmp_path / name, log_lines({"llm": around(0, 0.3, 8)}), predictions=tasks)


def ids(task):
    return [question.identifier for question in task.questions]


def test_few_questions_are_all_shown_the_worst_first(tmp_path):
    one = run(tmp_path, vqa=[answered(0, 1.0), answered(1, 0.0), answered(2, 0.5), answered(3, 0.0)])
    (task,) = read_predictions([one.predictions])
    assert (task.task, task.asked) == ("vqa", 4)
    assert ids(task) == ["q1", "q3", "q2", "q0"]
    question = task.questions[0]
    assert (question.prompt, question.references, question.score) == ("what is 1?", ["1"], 0.0)


def test_of_many_the_worst_and_the_best_are_chosen(tmp_path):
    one = run(tmp_path, vqa=[answered(n, n / 1000) for n in range(1000)])
    (task,) = read_predictions([one.predictions])
    assert task.asked == 1000
    assert ids(task) == [f"q{n}" for n in [*range(45), *range(985, 1000)]]
    assert len(task.questions) == EACH


def test_runs_answer_side_by_side_and_where_they_differ_is_chosen(tmp_path):
    scores = [0.5] * 300
    other = [1.0 if n == 150 else 0.5 for n in range(300)]
    first, second = (
        run(tmp_path, name, vqa=[answered(n, score, prediction=name) for n, score in enumerate(given)])
        for name, given in (("a", scores), ("b", other))
    )
    (task,) = read_predictions([first.predictions, second.predictions])
    assert task.asked == 300
    assert len(task.questions) == EACH
    (unlike,) = [question for question in task.questions if question.spread]
    assert unlike.identifier == "q150"
    assert [(answer.run, answer.text, answer.score) for answer in unlike.answers] == [(0, "a", 0.5), (1, "b", 1.0)]


def test_the_same_id_with_other_words_is_another_question(tmp_path):
    first, second = (run(tmp_path, n, vqa=[answered(1, 0.0, prompt=n)]) for n in ("a", "b"))
    (task,) = read_predictions([first.predictions, second.predictions])
    assert task.asked == 2


def test_many_tasks_share_the_page(tmp_path):
    one = run(tmp_path, **{f"task{n:02}": [answered(k) for k in range(50)] for n in range(24)})
    tasks = read_predictions([one.predictions])
    assert sum(len(task.questions) for task in tasks) == 240


def test_answers_without_scores_keep_their_order(tmp_path):
    one = run(tmp_path, vqa=[answered(n, None) for n in range(100)])
    (task,) = read_predictions([one.predictions])
    assert ids(task) == [f"q{n}" for n in range(EACH)]
    text = Page(build_report([one], tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert f"{EACH} of 100 questions." in text


def test_damaged_files(tmp_path):
    one = run(tmp_path, vqa=[answered(0)])
    file = one.predictions / "vqa.jsonl"
    odd = b'{"id": 7, "references": "no list", "score": "high", "prediction": null, "images": [3]}\n'
    file.write_bytes(b'[1]\n\xff\xfe\n{"id": "cu\n' + odd + file.read_bytes() + b'{"id": "q9", "pro')
    (one.predictions / "empty.jsonl").write_bytes(b"")
    (one.predictions / ".unfinished").mkdir()
    (one.predictions / "folder.jsonl").mkdir()
    (task,) = read_predictions([one.predictions])
    assert ids(task) == ["q0", "7"]
    assert (task.questions[1].references, task.questions[1].images, task.questions[1].score) == ([], ["3"], None)
    build_report([one], tmp_path / "r.html")


def test_a_file_that_is_replaced_between_the_two_looks(tmp_path, monkeypatch):
    """The new one's lines are where the old one's were; some hold the same question, with another score."""
    one = run(tmp_path, vqa=[answered(n, n / 10) for n in range(4)])
    new = [answered(0, 0.9), answered(7, 0.1), answered(2, 0.2), answered(8, 0.3)]
    asked = predictions.choose

    def replace(places, most):
        (one.predictions / "vqa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in new))
        return asked(places, most)

    monkeypatch.setattr(predictions, "choose", replace)
    (task,) = read_predictions([one.predictions])
    assert [(question.identifier, question.score) for question in task.questions] == [("q2", 0.2), ("q0", 0.9)]


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_lines_too_long_are_passed_over(tmp_path, monkeypatch, ending):
    one = run(tmp_path, vqa=[answered(n) for n in range(3)])
    first, second, third = (one.predictions / "vqa.jsonl").read_bytes().splitlines(keepends=True)
    monkeypatch.setattr(lines, "LONGEST", max(map(len, (first, second, third))))
    long = json.dumps(answered(8, prediction="x" * 1_000)).encode() + b"\n"
    (one.predictions / "vqa.jsonl").write_bytes(first + long + second + third + long.strip() + ending)
    (task,) = read_predictions([one.predictions])
    assert ids(task) == ["q0", "q1", "q2"]
    one.metrics_file.write_bytes(b'{"step": 1, "loss": 2}\n' + long + b'{"step": 2, "loss": 3}\n')
    assert view_all([one])[0].column("loss") == ([1, 2], [2, 3])


def test_no_predictions(tmp_path):
    page = Page(build_report([run(tmp_path)], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "No predictions: no run was evaluated." in page.text


def test_long_texts_are_cut_and_their_length_said():
    assert cut("abc", 3) == "abc"
    assert cut("x" * 1_000_000, 4) == "xxxx… (1,000,000 characters in all)"


def decoded(element: str) -> bytes:
    return base64.b64decode(element.partition("base64,")[2].partition('"')[0])


def test_a_picture_is_shrunk(tmp_path):
    Image.effect_noise((2000, 1000), 80).convert("RGB").save(tmp_path / "large.jpg")
    element = Inliner().picture(str(tmp_path / "large.jpg"), 'a "picture"', [tmp_path])
    assert Image.open(io.BytesIO(decoded(element))).size == (SIDE, SIDE // 2)
    assert 'alt="a &quot;picture&quot;"' in element
    assert element == Inliner().picture(str(tmp_path / "large.jpg"), 'a "picture"', [tmp_path])


def test_a_picture_is_decoded_once_until_its_file_changes(tmp_path, monkeypatch):
    """A watched page is drawn anew with every step."""
    decoded = []
    load = inlined.load_image
    monkeypatch.setattr(inlined, "load_image", lambda path, *limits: decoded.append(path) or load(path, *limits))
    file = tmp_path / "a.png"
    elements = []
    for side in (40, 40, 50):
        if not file.is_file() or side == 50:
            Image.new("RGB", (side, side), (side, 0, 0)).save(file)
        elements.append(Inliner().picture(str(file), "", [tmp_path]))
    assert decoded == [file, file]
    assert elements[0] == elements[1] != elements[2]


def test_a_long_clip_is_cut(tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros((8_000 * 25, 2)), 8_000)
    element = Inliner().clip(str(tmp_path / "long.flac"), "a clip", [tmp_path])
    sound, rate = soundfile.read(io.BytesIO(decoded(element)))
    assert len(sound) / rate == pytest.approx(10, abs=0.1)
    assert "The first 10 of 25.0 seconds." in element


@pytest.fixture
def noise(tmp_path):
    """A picture, and how many letters it takes."""
    Image.effect_noise((300, 300), 80).convert("RGB").save(tmp_path / "noise.png")
    inliner = Inliner()
    inliner.picture(str(tmp_path / "noise.png"), "", [tmp_path])
    return str(tmp_path / "noise.png"), LIMIT - inliner.room


def section(room, *runs):
    return Page(predictions_section(view_all(runs), [one.predictions for one in runs], room))


def test_what_does_not_fit_is_left_out_and_counted(tmp_path, noise):
    picture, size = noise
    one = run(tmp_path, vqa=[answered(n, 0.0, images=[picture]) for n in range(5)])
    page = section(2 * size, one)
    assert [image["alt"] for image in page.all("img")] == ["Picture 1 of question q0", "Picture 1 of question q1"]
    assert page.text.count("noise.png: left out, the page is full") == 3
    assert "did not fit" in page.text
    assert "left out" not in section(5 * size, one).text


def test_a_full_page_decodes_nothing_more(tmp_path, noise, monkeypatch):
    picture, _ = noise
    monkeypatch.setattr(inlined, "load_image", None)
    inliner = Inliner(LEAST - 1)
    assert "left out, the page is full" in inliner.picture(picture, "", [tmp_path])
    assert (inliner.left_out, inliner.hidden) == (1, 0)


def test_no_media(tmp_path, noise):
    one = run(tmp_path, vqa=[answered(n, 0.0, images=[noise[0]]) for n in range(2)])
    page = Page(build_report([one], tmp_path / "r.html", media=False).read_text(encoding="utf-8"))
    assert page.all("img") == []
    assert "Pictures and clips are left out (--no-media)." in page.text
    assert "noise.png" not in page.text


def test_all_tasks_get_pictures_of_their_worst_before_any_gets_more(tmp_path, noise):
    picture, size = noise
    asked = [answered(n, 0.0, images=[picture]) for n in range(5)]
    page = section(2 * size, run(tmp_path, a=asked, b=asked))
    assert [image["alt"] for image in page.all("img")] == ["Picture 1 of question q0"] * 2


def test_many_pictures_of_one_question(tmp_path):
    small = tmp_path / "small.png"
    Image.new("RGB", (8, 8)).save(small)
    one = run(tmp_path, vqa=[answered(0, 0.0, images=[str(small)] * 9)])
    page = Page(build_report([one], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 4
    assert "and 5 more" in page.text

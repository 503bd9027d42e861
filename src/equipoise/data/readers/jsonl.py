"""A user's own data: a folder with one JSON-lines file a split, `train.jsonl`, `validation.jsonl`, `test.jsonl`.

Each line is an object:

| key | |
| --- | --- |
| `prompt`, `answer` | one question and the answer to learn, or |
| `messages` | a conversation, `[{"role": "user", "content": "..."}, {"role": "assistant", ...}]`, ending in an answer |
| `image` or `images` | a path or a list of paths, relative to the folder and inside it; optional |
| `audio` or `audios` | likewise |
| `references` | every answer that counts as right; by default the one to learn |
| `id` | optional; the line number by default |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from equipoise.data.sample import Role, Sample, Turn
from equipoise.errors import DataError

ROLES = ("system", "user", "assistant")


def read(task: str, split: str, path: Path | None = None) -> list[Sample]:
    """Read one split.

    Raises:
        DataError: a missing file, or a line that is not as described above; the message gives its number.
    """
    assert path is not None, "the recipe requires a path for this reader"
    source = path / f"{split}.jsonl"
    try:
        lines = source.read_text(encoding="utf-8").split("\n")  # splitlines also splits at U+2028, which JSON may hold
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"task {task}: {source} cannot be read ({error})") from error
    samples = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                samples.append(_sample(task, path, number, json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise DataError(f"task {task}: {source}, line {number}: {reason}") from error
    return samples


def _sample(task: str, folder: Path, number: int, row: Any) -> Sample:
    if not isinstance(row, dict):
        raise ValueError(f"found {row!r:.60}; expected an object")
    if "messages" in row:
        turns = tuple(Turn(_role(message["role"]), _text(message["content"])) for message in row["messages"])
    else:
        turns = (Turn("user", _text(row["prompt"])), Turn("assistant", _text(row["answer"])))
    spoken = [turn.role for turn in turns]
    if spoken[:1] == ["system"]:
        spoken = spoken[1:]
    if spoken[:1] != ["user"] or spoken[-1] != "assistant" or "system" in spoken:
        raise ValueError("a conversation must begin with a user, after at most one system turn, and end with an answer")
    references = row.get("references", [turns[-1].text])
    if not isinstance(references, list) or not references:
        raise TypeError(f"references is {references!r:.60}; expected a list of at least one text")
    return Sample(
        id=str(row.get("id", number)),
        task=task,
        turns=turns,
        images=_files(folder, row, "image"),
        audios=_files(folder, row, "audio"),
        references=tuple(_text(reference) for reference in references),
    )


def _role(value: Any) -> Role:
    if value not in ROLES:
        raise ValueError(f"role is {value!r}; allowed: {', '.join(ROLES)}")
    return cast(Role, value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r:.60} where a text is expected")
    return value


def _files(folder: Path, row: dict[str, Any], kind: str) -> tuple[Path, ...]:
    found: Any = row.get(f"{kind}s", row.get(kind, []))
    return tuple(_inside(folder, name, kind) for name in ([found] if isinstance(found, str) else found))


def _inside(folder: Path, name: Any, kind: str) -> Path:
    try:
        path = (folder / _text(name)).resolve()
        exists = path.is_file()
    except OSError as error:
        raise ValueError(f"{kind} {name:.60} cannot be looked up ({error.strerror})") from error
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{kind} {name} lies outside the task's folder")
    if not exists:
        raise ValueError(f"{kind} {name} does not exist")
    return path

"""LLaVA-style JSON: a list of conversations, as LLaVA's "Finetune_Custom_Data.md" describes it.

```
[{"id": "...", "image": "coco/train2017/000000033471.jpg",
  "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"}, {"from": "gpt", "value": "A bus."}]}]
```

`path` is such a file, which has the split `train` alone (as `llava_v1_5_mix665k.json`), or a folder with a file a
split, `train.json`. `image` is a path or a list of paths, absent where a conversation is about none; `audio` likewise.
They are relative to `image_folder`, by default to the folder of the file.

`<image>` and `<audio>` leave the human's turns: a sample's images and clips stand before them anyway. A first turn that
is not the human's is left out, as LLaVA's training does. Without a file, a text may have them, as that of a person who
writes about markup; but not where the first question begins or ends with one, for there the file was forgotten. The
reference is the last answer. An id that comes again, as in mixtures, gets the number of its item: "33471#17".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.data.readers.files import inside, json_items
from equipoise.data.readers.plain import check_turns
from equipoise.data.readers.reader import Flaw, Reader, check_split, items_of, keys_of, mapping, samples_of, text_of
from equipoise.data.sample import Role, Sample, Turn
from equipoise.texts import shown

ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}
EXPECTED = '[{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]'
Item = tuple[str, Any]
#: The placeholders with which a text begins; and ends, both written backwards: searching for an end takes its square.
BEGINNING = re.compile(r"\s*(?:<(?:image|audio)>\s*)+")
ENDING = re.compile(r"\s*(?:>(?:egami|oidua)<\s*)+")


def read(task: str, split: str, path: Path, image_folder: str | None = None) -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        image_folder: where images and audio are; the file's folder when None.
    """
    if path.is_file():
        check_split(task, "llava", split, ("train",))
    source = path if path.is_file() else path / f"{split}.json"
    folder = Path(image_folder) if image_folder is not None else source.parent
    items = ((id, (id, row)) for id, row in numbered(json_items(task, source)))
    yield from samples_of(items, lambda item: conversation_sample(task, folder, item), source)


def numbered(rows: Iterator[Any]) -> Iterator[Item]:
    """Rows with an id each that no other has: their own, or where they stand."""
    seen: set[int] = set()  # of hashes: texts would take too much memory
    for number, row in enumerate(rows, start=1):
        found = row.get("id") if isinstance(row, dict) else None
        id = str(found) if isinstance(found, str | int) and found != "" else f"item {number}"
        if hash(id) in seen:
            id = f"{id}#{number}"
        seen.add(hash(id))
        yield id, row


def conversation_sample(task: str, folder: Path, item: Item) -> Sample:
    """Make a sample of an id and a conversation in LLaVA's form, with media below the folder."""
    id, row = item
    row = mapping(row)
    images, audios = (_media(folder, row, kind) for kind in ("image", "audio"))
    messages = messages_of(row)
    asked = [text for speaker, text in messages if speaker == "human"]
    spoken, edges = "".join(asked), _edges(asked[0]) if asked else ""
    for kind, files in (("image", images), ("audio", audios)):
        found = spoken.count(f"<{kind}>")
        if files and found not in (0, len(files)):
            raise ValueError(f"it has {found} times <{kind}> for {len(files)} {kind} files; expected one each")
        if not files and f"<{kind}>" in edges:
            times = "1 time" if found == 1 else f"{found} times"
            raise ValueError(f"it has {times} <{kind}> and no {kind!r} ({keys_of(row)})")
        if files:
            messages = [(who, text.replace(f"<{kind}>", "") if who == "human" else text) for who, text in messages]
    turns = turns_of(messages)
    return Sample(id=id, task=task, turns=turns, images=images, audios=audios, references=(turns[-1].text,))


def _edges(text: str) -> str:
    beginning, ending = BEGINNING.match(text), ENDING.match(text[::-1])
    return (beginning[0] if beginning else "") + (ending[0][::-1] if ending else "")


def messages_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The speakers and texts of a conversation, which must have at least one."""
    if "conversations" not in row:
        raise ValueError(
            f"'conversations' is missing ({keys_of(row)}); expected {EXPECTED}; "
            "the jsonl reader takes prompt and answer, or messages"
        )
    messages = []
    for message in map(mapping, items_of(row["conversations"], "conversations")):
        for key in ("from", "value"):
            if key not in message:
                raise ValueError(f"{key!r} is missing ({keys_of(message)}); expected {EXPECTED}")
        speaker, text = message["from"], message["value"]
        if isinstance(text, int | float):
            kind = "truth value" if isinstance(text, bool) else "number"
            raise TypeError(f"value is the {kind} {json.dumps(text)}; write {json.dumps(json.dumps(text))}")
        if not isinstance(speaker, str) or not isinstance(text, str):
            raise TypeError(f"found from {shown(speaker)} and value {shown(text)}; expected texts")
        messages.append((speaker, text))
    return messages


def turns_of(messages: list[tuple[str, str]]) -> tuple[Turn, ...]:
    """Turns of what was said by whom, from the human's first on."""
    if messages and messages[0][0] == "gpt":
        messages = messages[1:]
    turns = tuple(Turn(_role(speaker), text_of(text, "value")) for speaker, text in messages)
    check_turns(turns)
    return turns


def _role(speaker: str) -> Role:
    if speaker not in ROLES:
        raise ValueError(f"from is {shown(speaker)}; allowed: {', '.join(ROLES)}")
    return ROLES[speaker]


def _media(folder: Path, row: dict[str, Any], kind: str) -> tuple[Path, ...]:
    found = row.get(kind)
    if found is None:
        return ()
    return tuple(inside(folder, name, kind) for name in (found if isinstance(found, list) else [found]))


READER = Reader(read)

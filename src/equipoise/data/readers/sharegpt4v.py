"""ShareGPT4V (Chen et al. 2023): 102,000 long descriptions of images by GPT-4V, as questions and answers.

Layout, as the owners' "docs/Data.md" draws it:

```
sharegpt4v/sharegpt4v_instruct_gpt4-vision_cap100k.json   or beside the folders below
coco/train2017/000000000009.jpg
llava/llava_pretrain/images/00453/004539375.jpg
sam/images/sa_545504.jpg
share_textvqa/images/..., web-celebrity/images/..., web-landmark/images/..., wikiart/images/...
```

The file is a list of {id, image, conversations: [{from: human | gpt, value}]}, with `<image>` in the human's turn. The
owners do not divide it; CoTBal holds 2,000 samples out for validation and 2,000 for test (a recipe's `hold_out`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from equipoise.data.readers.files import json_items
from equipoise.data.readers.llava import conversation_sample, numbered
from equipoise.data.readers.reader import Flaw, Reader, check_split, samples_of
from equipoise.data.sample import Sample

FILE = "sharegpt4v_instruct_gpt4-vision_cap100k.json"
SPLITS = ("train",)


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read it all."""
    check_split(task, "sharegpt4v", split, SPLITS)
    source = path / "sharegpt4v" / FILE
    if not source.is_file() and (path / FILE).is_file():
        source = path / FILE
    items = ((id, (id, row)) for id, row in numbered(json_items(task, source)))
    yield from samples_of(items, lambda item: conversation_sample(task, path, item), source)


READER = Reader(read, splits=SPLITS)

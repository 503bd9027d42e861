"""RefCOCO, RefCOCO+ and RefCOCOg (Kazemzadeh et al. 2014, Mao et al. 2016): phrases that refer to a region of an image.

Layout, as the owners' API `refer` and its README lay it out below one folder:

```
refcoco/refs(unc).p    refcoco+/refs(unc).p    refcocog/refs(umd).p
    a pickled list of {ref_id, ann_id, image_id, category_id, split, file_name, sent_ids,
    sentences: [{sent_id, sent, raw, tokens}]}; `file_name` is not the image's
DATASET/instances.json
    COCO's: images [{id, file_name, width, height}], annotations [{id, image_id, bbox: [x, y, width, height]}]
images/mscoco/images/train2014/COCO_train2014_000000581857.jpg   or images/train2014/...
```

| split | RefCOCO, RefCOCO+ | RefCOCOg (of UMD) |
| --- | --- | --- |
| `train` | train | train |
| `validation` | val | val |
| `test` | testA: people | test |
| `testB` | testB: other things | |

A pickle can run code, so ours may hold lists, dicts, texts and numbers alone, and names nothing to import.

`kind` decides what is asked, in the words of CoTBal's Table 1 and where LLaVA-1.5's mixture has the box or the phrase:

- `caption`: "Provide a short description for this region: [0.28, 0.34, 0.4, 0.71]." is answered by "red jacket";
- `bbox`: "Provide the bounding box coordinate of the region this sentence describes: red jacket." is answered by
  "[0.28, 0.34, 0.4, 0.71]".

A box is left, top, right, bottom, as shares of the image's width and height to two decimals (the mixture drops a last
zero). With `square`, for models that see the image padded to a square, as LLaVA-1.5 does by `image_aspect_ratio pad`,
they are shares of that square; the mixture's boxes of Visual Genome are. The reference of a `bbox` sample is the same
box to six decimals, and `Sample.box` is always the share of the image itself.

Each phrase is a sample, "REF-SENTENCE", but for captions outside `train`: there each region is one, "REF", as in
CoTBal's evaluation, whose answer is its first phrase. The references of a caption are all phrases for the region.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.data.readers.answers import number_of
from equipoise.data.readers.files import inside, json_items, opening
from equipoise.data.readers.reader import (
    Flaw,
    Reader,
    check_option,
    check_split,
    items_of,
    mapping,
    samples_of,
    text_of,
)
from equipoise.data.sample import Box, Sample, exchange
from equipoise.errors import DataError
from equipoise.texts import shown

REFS = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
SPLITS = {"train": "train", "validation": "val", "test": "testA", "testB": "testB"}
SPLITS_REFCOCOG = {"train": "train", "validation": "val", "test": "test"}
KINDS = ("caption", "bbox")
IMAGES = (Path("images/mscoco/images/train2014"), Path("images/train2014"), Path("mscoco/images/train2014"))
CAPTION_PROMPT = "Provide a short description for this region: {}."
BBOX_PROMPT = "Provide the bounding box coordinate of the region this sentence describes: {}."


def read(
    task: str, split: str, path: Path, dataset: str = "refcoco", kind: str = "bbox", square: bool = False
) -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        path: the folder that holds the datasets' folders and the images.
        dataset: `refcoco`, `refcoco+` or `refcocog`.
        kind: `caption`: describe the region; `bbox`: find it.
        square: boxes in texts are shares of the square that the image is padded to.
    """
    check_option(task, "refcoco", "dataset", dataset, REFS)
    check_option(task, "refcoco", "kind", kind, KINDS)
    check_option(task, "refcoco", "square", square, (False, True))
    splits = SPLITS_REFCOCOG if dataset == "refcocog" else SPLITS
    check_split(task, dataset, split, splits)
    source = path / dataset / REFS[dataset]
    refs = [
        (_named(ref["ref_id"]) if isinstance(ref, dict) and "ref_id" in ref else f"ref {number}", ref)
        for number, ref in enumerate(_refs(task, source), start=1)
        if not isinstance(ref, dict) or ref.get("split", splits[split]) == splits[split]
    ]
    instances = _Instances(task, path, dataset, [ref for _, ref in refs])

    def make(item: tuple[str, Any]) -> list[Sample]:
        place, ref = item
        mapping(ref)["split"]  # must be there
        return _samples(task, place, ref, instances.region(ref, square), kind, kind == "bbox" or split == "train")

    yield from samples_of(((place, (place, ref)) for place, ref in refs), make, source)


@dataclass(frozen=True)
class _Region:
    """A ref's image, its box as shares of that, and its box as texts show it."""

    image: Path
    box: Box
    shown: Box


def _samples(task: str, place: str, ref: dict[str, Any], region: _Region, kind: str, each: bool) -> list[Sample]:
    """The samples of one ref, one for each phrase or one alone."""
    sentences = [mapping(sentence) for sentence in items_of(ref["sentences"], "sentences")]
    phrases = tuple(text_of(sentence["sent"], "sent") for sentence in sentences)
    short = str([round(edge, 2) for edge in region.shown])
    exact = f"[{', '.join(f'{edge:.6f}' for edge in region.shown)}]"

    def sample(id: str, phrase: str) -> Sample:
        if kind == "caption":
            turns, references = exchange(CAPTION_PROMPT.format(short), phrase), phrases
        else:
            turns, references = exchange(BBOX_PROMPT.format(phrase.removesuffix(".")), short), (exact,)
        return Sample(id=id, task=task, turns=turns, images=(region.image,), references=references, box=region.box)

    if not each:
        return [sample(place, phrases[0])]
    return [sample(f"{place}-{_named(sentence['sent_id'])}", phrase) for sentence, phrase in zip(sentences, phrases)]


def _named(id: Any) -> str:
    """An id as text; a pickle can have anything in its place."""
    return id if isinstance(id, str) else shown(id)


def _refs(task: str, source: Path) -> list[Any]:
    """Read a pickled list of plain data.

    Raises:
        DataError: it cannot be read, is cut short, or holds anything but plain data.
    """
    with opening(task, source) as file:
        try:
            refs = _PlainUnpickler(file, encoding="latin1").load()  # Python 2 wrote them
        except Exception as error:  # pickle's documentation rules no exception out
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"task {task}: {source} is no pickle of plain lists and dicts ({reason:.200})") from error
    if not isinstance(refs, list):
        raise DataError(f"task {task}: {source} holds a {type(refs).__name__}; expected a list of refs")
    return refs


class _PlainUnpickler(pickle.Unpickler):
    """Looks nothing up, and so can neither import nor call anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not loaded")


class _Instances:
    """What COCO's JSON knows of the images and boxes of some refs."""

    def __init__(self, task: str, path: Path, dataset: str, refs: list[Any]):
        source = path / dataset / "instances.json"
        self.boxes = _by_id(task, source, "annotations", refs, "ann_id")
        self.images = _by_id(task, source, "images", refs, "image_id")
        self.folder = next((path / images for images in IMAGES if (path / images).is_dir()), path / IMAGES[0])

    def region(self, ref: dict[str, Any], square: bool) -> _Region:
        """A ref's region; raises as `samples_of` wants it where there is none."""
        bbox = _entry(self.boxes, ref["ann_id"], "ann_id")["bbox"]
        image = _entry(self.images, ref["image_id"], "image_id")
        width, height = image["width"], image["height"]
        box = _shares(bbox, width, height)
        shown = _padded(box, width, height) if square else box
        return _Region(inside(self.folder, image["file_name"], "image"), box, shown)


def _by_id(task: str, source: Path, key: str, refs: list[Any], name: str) -> dict[int, dict[str, Any]]:
    """Those of COCO's images or annotations that refs name, without the outlines, which are most of the file."""
    named = (ref.get(name) for ref in refs if isinstance(ref, dict))
    wanted = {id for id in named if isinstance(id, int)}
    found = {}
    for item in json_items(task, source, f"{key}.item"):
        if isinstance(item, dict) and isinstance(item.get("id"), int) and item["id"] in wanted:
            found[item["id"]] = {field: value for field, value in item.items() if field != "segmentation"}
    return found


def _entry(entries: dict[int, dict[str, Any]], id: Any, name: str) -> dict[str, Any]:
    entry = entries.get(number_of(id, name))
    if entry is None:
        raise ValueError(f"{name} {id} is not in instances.json")
    return entry


def _shares(bbox: Any, width: Any, height: Any) -> Box:
    """Edges as shares of the image; COCO's boxes stand out by a fraction of a pixel here and there."""
    numbers = [*items_of(bbox, "bbox"), width, height]
    if len(numbers) != 6 or not all(isinstance(number, int | float) for number in numbers) or min(width, height) <= 0:
        raise ValueError(
            f"bbox is {shown(bbox)} in an image of {shown(width)} x {shown(height)}; expected x, y, width, height"
        )
    x, y, wide, high = bbox
    left, right = (min(max(edge / width, 0.0), 1.0) for edge in (x, x + wide))
    top, bottom = (min(max(edge / height, 0.0), 1.0) for edge in (y, y + high))
    if left >= right or top >= bottom:
        raise ValueError(f"bbox is {shown(bbox)}, which covers nothing of an image of {shown(width)} x {shown(height)}")
    return left, top, right, bottom


def _padded(box: Box, width: int, height: int) -> Box:
    """A box as shares of the square that LLaVA pads an image to, which stands in its middle, rounded up and left."""
    side = max(width, height)
    before_x, before_y = (side - width) // 2, (side - height) // 2
    left, top, right, bottom = box
    return (
        (left * width + before_x) / side,
        (top * height + before_y) / side,
        (right * width + before_x) / side,
        (bottom * height + before_y) / side,
    )


READER = Reader(read, splits=tuple(SPLITS))

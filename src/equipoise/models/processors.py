"""Processors by AutoProcessor; their video part is left out where there is no torchvision, which it needs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.utils import PROCESSOR_NAME, VIDEO_PROCESSOR_NAME, cached_file
from transformers.utils.import_utils import is_torchvision_available


def from_pretrained(path: str, trust_remote_code: bool = False) -> ProcessorMixin:
    """The processor of a folder or hub id; images and audio need Pillow, soundfile and transformers alone."""
    if not is_torchvision_available() and not trust_remote_code:
        cls = _class(path)
        if cls is not None and "video_processor" in cls.get_attributes():
            processor: Any = _without_video(cls).from_pretrained(path, trust_remote_code=False)
            processor.video_settings = _video_settings(path)
            return processor
    return AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)


def _class(path: str) -> Any:
    """The processor's class, by its own file or by the model's config; None for one that transformers lacks."""
    name = _json(path, PROCESSOR_NAME).get("processor_class")
    if name:
        return processor_class_from_name(name)
    return PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(path, trust_remote_code=False)), None)


def _video_settings(path: str) -> dict[str, Any]:
    return _json(path, VIDEO_PROCESSOR_NAME) or _json(path, PROCESSOR_NAME).get("video_processor", {})


def _json(path: str, name: str) -> dict[str, Any]:
    """A file of a checkpoint, empty if it has none of that name."""
    file = cached_file(
        path, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return json.loads(Path(file).read_text(encoding="utf-8")) if file else {}


def _without_video(cls: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The class without its video part, under its own name, which is what `save_pretrained` writes down."""
    attributes = [name for name in cls.get_attributes() if name != "video_processor"]

    class WithoutVideo(cls):  # type: ignore[misc, valid-type]
        video_processor = SimpleNamespace(num_frames=None, fps=None)  # SmolVLM asks for them with every template
        video_settings: dict[str, Any] = {}  # noqa: RUF012

        @classmethod
        def get_attributes(cls) -> list[str]:
            return list(attributes)

        @classmethod
        def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **options: Any) -> Any:
            return super().from_args_and_dict(args, processor_dict, video_processor=None, **options)

        def to_dict(self) -> dict[str, Any]:
            return {name: value for name, value in super().to_dict().items() if not name.startswith("video_")}

        def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
            """As ProcessorMixin's, with the video part's settings as they were: others have torchvision."""
            super().save_pretrained(save_directory, *args, **kwargs)
            if self.video_settings:
                file = Path(save_directory) / VIDEO_PROCESSOR_NAME
                file.write_text(json.dumps(self.video_settings, indent=2) + "\n", encoding="utf-8")

    WithoutVideo.__name__ = cls.__name__
    return WithoutVideo

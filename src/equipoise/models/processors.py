"""Processors by AutoProcessor; their video part is left out where there is no torchvision, which it needs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils.import_utils import is_torchvision_available


def from_pretrained(path: str, trust_remote_code: bool = False) -> ProcessorMixin:
    """The processor of a folder or hub id; images and audio need Pillow, soundfile and transformers alone."""
    if not is_torchvision_available() and not trust_remote_code:
        config = AutoConfig.from_pretrained(path)
        cls: Any = PROCESSOR_MAPPING.get(type(config), None)
        if cls is not None and "video_processor" in cls.get_attributes():
            return _without_video(cls).from_pretrained(path)
    return AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)


def _without_video(cls: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The class without its video part, under its own name, which is what `save_pretrained` writes down."""
    attributes = [name for name in cls.get_attributes() if name != "video_processor"]

    class WithoutVideo(cls):  # type: ignore[misc, valid-type]
        video_processor = SimpleNamespace(num_frames=None, fps=None)  # SmolVLM asks for them with every template

        @classmethod
        def get_attributes(cls) -> list[str]:
            return list(attributes)

        @classmethod
        def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **options: Any) -> Any:
            return super().from_args_and_dict(args, processor_dict, video_processor=None, **options)

    WithoutVideo.__name__ = cls.__name__
    return WithoutVideo

"""Models: loading, LoRA, what a family's modules are; importing this registers the classes that transformers lacks."""

from equipoise.models import audio_vision as _audio_vision  # noqa: F401
from equipoise.models import efficientnet_lite as _efficientnet_lite  # noqa: F401
from equipoise.models import flamingo as _flamingo  # noqa: F401
from equipoise.models import llava_qformer as _llava_qformer  # noqa: F401
from equipoise.models import salmonn as _salmonn  # noqa: F401

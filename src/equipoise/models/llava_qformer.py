"""LLaVA with BLIP-2's Q-Former in the place of its projector: image tokens are learned questions about the features.

All else is transformers' LLaVA, its processor included: `num_additional_image_tokens` there makes up the difference
between an image's patches and the tokens that the Q-Former emits.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoProcessor,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec
from transformers.models.llava.modeling_llava import LlavaModel


class LlavaQFormerConfig(LlavaConfig):
    """LLaVA's configuration and the Q-Former's.

    Attributes:
        qformer_config: its `encoder_hidden_size` follows from the tower.
        num_query_tokens: tokens an image becomes.
    """

    model_type = "llava_qformer"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        **LlavaConfig.sub_configs_defaults,
        "qformer_config": SubConfigSpec(Blip2QFormerConfig),
    }

    vision_config: Any = None
    text_config: Any = None
    qformer_config: Any = None
    num_query_tokens: int = 32

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.qformer_config.encoder_hidden_size = self.vision_config.hidden_size
        self.image_seq_length = self.num_query_tokens


class QFormerProjector(nn.Module):
    """From the tower's features [B, P, V] to the LLM's tokens [B, queries, D]: norm, Q-Former, linear map."""

    def __init__(self, config: LlavaQFormerConfig):
        super().__init__()
        width = config.qformer_config.hidden_size
        self.norm = nn.LayerNorm(config.vision_config.hidden_size)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
        self.qformer = Blip2QFormerModel(config.qformer_config)
        self.projection = nn.Linear(width, config.text_config.hidden_size)

    def forward(self, features_BPV: torch.Tensor) -> torch.Tensor:
        queries = self.query_tokens.expand(len(features_BPV), -1, -1)
        answered = self.qformer(query_embeds=queries, encoder_hidden_states=self.norm(features_BPV)).last_hidden_state
        return self.projection(answered)


class LlavaQFormerModel(LlavaModel):
    """LLaVA without its head, a Q-Former as its `multi_modal_projector`."""

    config: LlavaQFormerConfig
    config_class = LlavaQFormerConfig

    def __init__(self, config: LlavaQFormerConfig):
        super().__init__(config)
        self.multi_modal_projector = QFormerProjector(config)  # type: ignore[assignment]
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, QFormerProjector):
            init.normal_(module.query_tokens, std=self.config.qformer_config.initializer_range)


class LlavaQFormerForConditionalGeneration(LlavaForConditionalGeneration):
    """`LlavaQFormerModel` with the LLM's head."""

    config: LlavaQFormerConfig
    config_class = LlavaQFormerConfig

    def __init__(self, config: LlavaQFormerConfig):
        super(LlavaForConditionalGeneration, self).__init__(config)  # which would build LLaVA's own model first
        self.model = LlavaQFormerModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


AutoConfig.register(LlavaQFormerConfig.model_type, LlavaQFormerConfig, exist_ok=True)
AutoModel.register(LlavaQFormerConfig, LlavaQFormerModel, exist_ok=True)
AutoModelForMultimodalLM.register(LlavaQFormerConfig, LlavaQFormerForConditionalGeneration, exist_ok=True)
AutoProcessor.register(LlavaQFormerConfig, LlavaProcessor, exist_ok=True)

"""One LLM that hears and sees: SALMONN with an image tower and LLaVA's projector beside its audio branch.

Three modules can learn: `model.multi_modal_projector`, `model.qformer` and the LLM.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoProcessor,
    BaseImageProcessor,
    Cache,
    PreTrainedTokenizerBase,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from equipoise.models.salmonn.configuration import SalmonnConfig
from equipoise.models.salmonn.features import SalmonnFeatureExtractor
from equipoise.models.salmonn.modeling import (
    Modality,
    SalmonnForConditionalGeneration,
    SalmonnModel,
    gradients_if_trainable,
)
from equipoise.models.salmonn.processing import AUDIO_TOKEN, SalmonnProcessor, audio_placeholder, vicuna_template

IMAGE_TOKEN = "<image>"


class AudioVisionConfig(SalmonnConfig):
    """SALMONN's configuration and, as LLaVA names them, the image branch's.

    Attributes:
        vision_config: any tower that `AutoModel` knows.
        image_token_id: the placeholder that an image's tokens replace.
        image_seq_length: tokens an image becomes.
        vision_feature_layer: which of the tower's hidden states is read; several are joined.
        vision_feature_select_strategy: "full", or "default" to leave out the first token, the class's.
    """

    model_type = "audio_vision"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        **SalmonnConfig.sub_configs_defaults,
        "vision_config": SubConfigSpec(
            AutoConfig,
            model_type="clip_vision_model",
            init_kwargs={  # LLaVA-1.5's
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": 14,
                "image_size": 336,
            },
        ),
    }

    vision_config: Any = None
    image_token_id: int = 32000
    image_seq_length: int = 576
    vision_feature_layer: int | list[int] = -2
    vision_feature_select_strategy: str = "default"
    projector_hidden_act: str = "gelu"
    multimodal_projector_bias: bool = True


class AudioVisionModel(SalmonnModel):
    """`SalmonnModel` with `vision_tower` and `multi_modal_projector`."""

    config: AudioVisionConfig
    config_class = AudioVisionConfig
    input_modalities: Any = ("image", "audio", "text")

    def __init__(self, config: AudioVisionConfig):
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = LlavaMultiModalProjector(config)  # type: ignore[arg-type]
        self.post_init()

    @property
    def modalities(self) -> tuple[Modality, ...]:
        config = self.config
        image = Modality(
            "image", config.image_token_id, config.image_seq_length, ("pixel_values",), self.get_image_features
        )
        return (*super().modalities, image)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """See images [items, 3, H, W]: [items, `config.image_seq_length`, hidden size of the LLM]."""
        layers = self.config.vision_feature_layer
        with gradients_if_trainable(self.vision_tower):
            pixels = pixel_values.to(self.vision_tower.dtype)
            states = self.vision_tower(pixels, output_hidden_states=True).hidden_states
            features = torch.cat([states[layer] for layer in ([layers] if isinstance(layers, int) else layers)], dim=-1)
        if self.config.vision_feature_select_strategy == "default":
            features = features[:, 1:]
        return self.multi_modal_projector(features)

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        fbank: torch.Tensor | None = None,
        fbank_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> BaseModelOutputWithPast:
        """As `SalmonnModel.forward`; `pixel_values` [images, 3, H, W] holds the batch's images, row by row."""
        inputs = {
            "pixel_values": pixel_values,
            "input_features": input_features,
            "fbank": fbank,
            "fbank_mask": fbank_mask,
        }
        return self._run(input_ids, inputs, attention_mask, position_ids, past_key_values, inputs_embeds, **kwargs)


class AudioVisionForConditionalGeneration(SalmonnForConditionalGeneration):
    """`AudioVisionModel` with the LLM's head: answers to text, sound and images."""

    config: AudioVisionConfig
    config_class = AudioVisionConfig
    input_modalities: Any = ("image", "audio", "text")
    model_class = AudioVisionModel

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        fbank: torch.Tensor | None = None,
        fbank_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutputWithPast:
        """As `SalmonnForConditionalGeneration.forward`, with `pixel_values` [images, 3, H, W]."""
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            input_features=input_features,
            fbank=fbank,
            fbank_mask=fbank_mask,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )


class AudioVisionProcessor(SalmonnProcessor):
    """`SalmonnProcessor` that also takes `images=`, one for each `image_token` in the texts.

    Args:
        image_token: the placeholder, one token of the tokenizer's.
        num_image_tokens: tokens an image, the model's `config.image_seq_length`.
        others: of `SalmonnProcessor`.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        feature_extractor: SalmonnFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        audio_token: str = AUDIO_TOKEN,
        num_audio_tokens: int = 88,
        image_token: str = IMAGE_TOKEN,
        num_image_tokens: int = 576,
    ):
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.num_image_tokens = num_image_tokens
        self.audio_token = audio_token
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        self.num_audio_tokens = num_audio_tokens
        template = chat_template or vicuna_template(audio=audio_placeholder(audio_token), image=f"{image_token}\n")
        super(SalmonnProcessor, self).__init__(image_processor, feature_extractor, tokenizer, chat_template=template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **_: object) -> str:
        return self.image_token * self.num_image_tokens


AutoConfig.register(AudioVisionConfig.model_type, AudioVisionConfig, exist_ok=True)
AutoModel.register(AudioVisionConfig, AudioVisionModel, exist_ok=True)
AutoModelForMultimodalLM.register(AudioVisionConfig, AudioVisionForConditionalGeneration, exist_ok=True)
AutoFeatureExtractor.register(AudioVisionConfig, SalmonnFeatureExtractor, exist_ok=True)
AutoProcessor.register(AudioVisionConfig, AudioVisionProcessor, exist_ok=True)

"""Flamingo (Alayrac et al., NeurIPS 2022) over any tower and any Llama-like decoder that transformers has.

The LLM reads images through gated cross-attention layers between its own, and not as tokens among the text: an image's
placeholder is one token. transformers has two models of this kind, each tied to parts of its own: Idefics to its ViT
and to a Llama without grouped keys, Mllama to a tiling tower. The layer itself is Idefics'. Released Flamingos put a
perceiver between tower and LLM; here the layers read the tower's features as they are.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoProcessor,
    BaseImageProcessor,
    BatchFeature,
    Cache,
    GenerationMixin,
    IdeficsConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.idefics.modeling_idefics import (
    IdeficsBaseModelOutputWithPast,
    IdeficsCausalLMOutputWithPast,
    IdeficsGatedCrossAttentionLayer,
)

from equipoise.models.salmonn.modeling import gradients_if_trainable

IMAGE_TOKEN = "<image>"


class FlamingoConfig(PreTrainedConfig):
    """A tower, a decoder, and where in it images are read.

    Attributes:
        text_config: a decoder that `AutoModel` knows and whose layers pass unknown arguments on, as Llama's do. Its
            vocabulary holds the image placeholder.
        vision_config: any tower that `AutoModel` knows.
        cross_layers: the decoder's layers, counted from 0, in front of which a gated cross-attention layer stands.
        image_token_id: the placeholder; one token an image.
        gate: what a new layer's gates are before their tanh.
        initializer_range: deviation of new weights.

    Raises:
        ValueError: no cross-attention at all, or before a layer that is not there.
    """

    model_type = "flamingo"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(AutoConfig, model_type="llama"),
        "vision_config": SubConfigSpec(AutoConfig, model_type="clip_vision_model"),
    }

    text_config: Any = None
    vision_config: Any = None
    cross_layers: list | tuple = (0, 4, 8, 12, 16, 20, 24, 28)
    image_token_id: int = 32000
    gate: float = 0.0
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.tie_word_embeddings or bool(self.text_config.tie_word_embeddings)
        layers = self.text_config.num_hidden_layers
        if not self.cross_layers or not all(0 <= layer < layers for layer in self.cross_layers):
            raise ValueError(f"cross_layers: found {self.cross_layers}; the decoder's layers are 0 to {layers - 1}")


class FlamingoPreTrainedModel(PreTrainedModel):
    config: FlamingoConfig
    config_class = FlamingoConfig
    base_model_prefix = "model"
    input_modalities: Any = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, IdeficsGatedCrossAttentionLayer):
            init.constant_(module.alpha_cross_attn, self.config.gate)
            init.constant_(module.alpha_dense, self.config.gate)


class GatedCrossAttention(FlamingoPreTrainedModel):
    """Text asks, images answer: x + tanh(a) * attention(norm(x), images), then x + tanh(b) * mlp(norm(x)).

    Gates that start at zero, as Flamingo's do, let a new layer change nothing. A token before the first image of its
    row passes unchanged whatever the gates: a row says the same beside others as alone, and text alone is the LLM's.
    """

    def __init__(self, config: FlamingoConfig):
        super().__init__(config)  # a model of its own, or the LLM's class would draw its weights
        text = config.text_config
        settings = IdeficsConfig(
            hidden_size=text.hidden_size,
            intermediate_size=text.intermediate_size,
            num_attention_heads=text.num_attention_heads,
            hidden_act=text.hidden_act,
            rms_norm_eps=text.rms_norm_eps,
            vision_config={"embed_dim": config.vision_config.hidden_size},
            qk_layer_norms=True,
        )
        settings._attn_implementation = "sdpa"
        self.layer = IdeficsGatedCrossAttentionLayer(settings, layer_idx=0)
        # Idefics' self-attention alone has use for it.
        self.layer.cross_attn.rotary_emb = nn.Identity()  # type: ignore[assignment]

    def forward(self, hidden_BTD: torch.Tensor, images_BSD: torch.Tensor, seen_BTS: torch.Tensor) -> torch.Tensor:
        """Read images.

        Args:
            hidden_BTD: the decoder's states.
            images_BSD: each row's image features, one image after the other.
            seen_BTS: which of them each token may attend to.
        """
        looks_BT = seen_BTS.any(dim=-1)
        mask = torch.zeros_like(seen_BTS, dtype=hidden_BTD.dtype)
        mask = mask.masked_fill(~seen_BTS, torch.finfo(hidden_BTD.dtype).min)[:, None]
        read = self.layer(
            hidden_BTD, image_hidden_states=images_BSD, image_attention_mask=mask, cross_attention_gate=looks_BT
        )
        return torch.where(looks_BT[..., None], read, hidden_BTD)


class ReadingLayer(nn.Module):
    """A layer of the decoder with a gated cross-attention layer in front of it."""

    def __init__(self, cross_attention: GatedCrossAttention, layer: nn.Module):
        super().__init__()
        self.cross_attention = cross_attention
        self.layer = layer

    def forward(
        self,
        hidden_states: torch.Tensor,
        *args: object,
        image_states: torch.Tensor | None = None,
        image_seen: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        if image_states is not None:
            hidden_states = self.cross_attention(hidden_states, image_states, image_seen)
        return self.layer(hidden_states, *args, **kwargs)


class FlamingoModel(FlamingoPreTrainedModel):
    """The tower, and the LLM without its head, some of whose layers are `ReadingLayer`s."""

    def __init__(self, config: FlamingoConfig):
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.language_model = AutoModel.from_config(config.text_config)
        layers = self.language_model.layers
        for number in config.cross_layers:
            layers[number] = ReadingLayer(GatedCrossAttention(config), layers[number])
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_image_features(self, pixel_values: torch.Tensor, image_mask: torch.Tensor) -> torch.Tensor:
        """See images.

        Args:
            pixel_values: [B, N, 3, H, W].
            image_mask: [B, N], which of them are images; the others fill places.

        Returns:
            [B, N, patches, hidden size of the tower], zero where there is no image.
        """
        with gradients_if_trainable(self.vision_tower):
            states = self.vision_tower(pixel_values[image_mask].to(self.vision_tower.dtype)).last_hidden_state
        features = states.new_zeros(*image_mask.shape, *states.shape[1:])
        features[image_mask] = states
        return features

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        image_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> IdeficsBaseModelOutputWithPast:
        """Run the LLM over text, with images to look at.

        Args:
            input_ids: [B, T], with one placeholder for each image. A token sees its row's images up to itself; with a
                filled cache all of them, for images stand in the prompt.
            pixel_values, image_mask: the rows' images, see `get_image_features`.
            image_states: what that returned, in place of `pixel_values`.
            inputs_embeds: [B, T, D] in place of `input_ids`, of text alone.

        Raises:
            ValueError: images without `input_ids` or without `image_mask`, or placeholders and images differ in number.
        """
        if pixel_values is not None and image_states is None:
            if image_mask is None:
                raise ValueError("found pixel_values without image_mask, which tells images from what fills places")
            image_states = self.get_image_features(pixel_values, image_mask)
        seeing: dict[str, torch.Tensor] = {}
        started = past_key_values is not None and past_key_values.get_seq_length() > 0
        if image_states is not None:
            seen_BTN = self._seen(input_ids, image_mask, started)
            patches = image_states.shape[2]
            seeing["image_seen"] = seen_BTN.repeat_interleave(patches, dim=-1)
            seeing["image_states"] = image_states.flatten(1, 2).to(self.language_model.dtype)
        elif input_ids is not None and not started and (input_ids == self.config.image_token_id).any():
            raise ValueError("found image placeholders in input_ids and no images")
        outputs = self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **seeing,
            **kwargs,
        )
        return IdeficsBaseModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=image_states,  # type: ignore[arg-type]
        )

    def _seen(self, input_ids: torch.Tensor | None, mask_BN: torch.Tensor | None, started: bool) -> torch.Tensor:
        """Which images each token may look at: [B, T, N]."""
        if input_ids is None or mask_BN is None:
            raise ValueError("images need input_ids, which tell where they stand, and image_mask")
        if started:
            return mask_BN[:, None].expand(-1, input_ids.shape[1], -1)
        places = input_ids == self.config.image_token_id
        if not torch.equal(places.sum(dim=1), mask_BN.sum(dim=1)):
            raise ValueError(
                f"found {places.sum(dim=1).tolist()} image placeholders (token {self.config.image_token_id}) in the "
                f"rows of input_ids and {mask_BN.sum(dim=1).tolist()} images; each takes one"
            )
        number = torch.arange(mask_BN.shape[1], device=mask_BN.device)
        return number < places.cumsum(dim=1)[..., None]


class FlamingoForConditionalGeneration(FlamingoPreTrainedModel, GenerationMixin):
    """`FlamingoModel` with the LLM's head: answers to text and images."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: FlamingoConfig):
        super().__init__(config)
        self.model = FlamingoModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        image_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: object,
    ) -> IdeficsCausalLMOutputWithPast:
        """As `FlamingoModel.forward`, with logits.

        Args:
            labels: [B, T], -100 where none; gives the mean loss of the next tokens.
            logits_to_keep: the last so many positions, 0 for all; or the positions themselves, as transformers has it.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            image_mask=image_mask,
            image_states=image_states,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        assert outputs.last_hidden_state is not None
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            vocabulary = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocabulary, **kwargs)
        return IdeficsCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]:
        """As transformers', keeping what was seen: images are encoded once a prompt, not once a token."""
        kept = super()._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder, num_new_tokens)
        if outputs.image_hidden_states is not None:
            kept |= {"image_states": outputs.image_hidden_states, "pixel_values": None}
        return kept


class FlamingoProcessor(ProcessorMixin):
    """Image processor and tokenizer: `processor(text=[...], images=[[...], ...], return_tensors="pt")`.

    Beside the tokens it gives `pixel_values` [B, N, 3, H, W] and `image_mask` [B, N] where a row has an image; each
    image's placeholder in the texts stays the one token it is.

    Args:
        image_token: the placeholder, one token of the tokenizer's.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        image_token: str = IMAGE_TOKEN,
    ):
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **_: object) -> str:
        return self.image_token

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """As the base class's, with images sorted by row.

        Raises:
            ValueError: placeholders and images differ in number.
        """
        batch = super().__call__(images=images, text=text, **kwargs)
        if "pixel_values" in batch:
            rows = [text] if isinstance(text, str) else text
            counts = [row.count(self.image_token) for row in rows]
            if sum(counts) != len(batch["pixel_values"]):
                raise ValueError(f"found {sum(counts)} image placeholders and {len(batch['pixel_values'])} images")
            given = torch.as_tensor(batch["pixel_values"]).split(counts)
            most = max(counts)
            filled = [F.pad(row, (0, 0) * (row.dim() - 1) + (0, most - len(row))) for row in given]
            batch["pixel_values"] = torch.stack(filled)
            batch["image_mask"] = torch.arange(most) < torch.tensor(counts)[:, None]
        return batch


AutoConfig.register(FlamingoConfig.model_type, FlamingoConfig, exist_ok=True)
AutoModel.register(FlamingoConfig, FlamingoModel, exist_ok=True)
AutoModelForMultimodalLM.register(FlamingoConfig, FlamingoForConditionalGeneration, exist_ok=True)
AutoProcessor.register(FlamingoConfig, FlamingoProcessor, exist_ok=True)

"""SALMONN: Whisper's and BEATs' features side by side, a Q-Former over short windows of them, and an LLM.

`SalmonnModel` has four parts: `speech_encoder`, `beats` (None without it), `qformer`, which holds all that the release
trains on the encoders' side, and `language_model`. A subclass that hears and sees extends `modalities`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, Blip2QFormerModel, Cache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from equipoise.models.salmonn.configuration import SalmonnConfig


class WindowQFormer(nn.Module):
    """From the encoders' features to the LLM's tokens: norms, Q-Former over each window, projection.

    The Q-Former is BLIP-2's with cross-attention in every layer; every window meets the same query tokens.
    """

    def __init__(self, config: SalmonnConfig):
        super().__init__()
        self.window, self.stride = config.window, config.stride
        self.ln_speech = nn.LayerNorm(config.speech_config.d_model)
        self.ln_audio = nn.LayerNorm(config.beats_config.hidden_size) if config.beats_config else None
        width = config.qformer_config.hidden_size
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
        self.transformer = Blip2QFormerModel(config.qformer_config)
        self.projection = nn.Linear(width, config.text_config.hidden_size)

    def forward(
        self, speech_BTS: torch.Tensor, audio_BNA: torch.Tensor | None = None, mask_BN: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Join and project.

        Args:
            speech_BTS: Whisper's features.
            audio_BNA: BEATs' features, N <= T; zeros follow the last.
            mask_BN: where BEATs' features count; they are zero elsewhere. None: everywhere.

        Returns:
            [B, windows * query tokens, hidden size of the LLM].
        """
        features = self.ln_speech(speech_BTS)
        if self.ln_audio is not None:
            assert audio_BNA is not None
            audio = self.ln_audio(audio_BNA)
            if mask_BN is not None:
                audio = audio.masked_fill(~mask_BN[..., None], 0)
            audio = F.pad(audio, (0, 0, 0, features.shape[1] - audio.shape[1]))
            features = torch.cat([features, audio], dim=-1)
        windows = features.unfold(1, self.window, self.stride).transpose(2, 3).flatten(0, 1)  # [B * L, window, S + A]
        queries = self.query_tokens.expand(len(windows), -1, -1)
        answered = self.transformer(query_embeds=queries, encoder_hidden_states=windows).last_hidden_state
        return self.projection(answered).reshape(len(features), -1, self.projection.out_features)


@dataclass(frozen=True)
class Modality:
    """How one modality enters the LLM.

    Attributes:
        name: for messages.
        token_id: its placeholder.
        tokens: placeholders an item (a clip, an image).
        inputs: names of the forward's arguments that carry it, [items, ...] each, the first the one it needs.
        encode: from these arguments to [items, tokens, hidden size].
    """

    name: str
    token_id: int
    tokens: int
    inputs: tuple[str, ...]
    encode: Callable[..., torch.Tensor]


class SalmonnPreTrainedModel(PreTrainedModel):
    config: SalmonnConfig
    config_class = SalmonnConfig
    base_model_prefix = "model"
    input_modalities: Any = ("audio", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, WindowQFormer):
            init.normal_(module.query_tokens, std=self.config.qformer_config.initializer_range)


class SalmonnModel(SalmonnPreTrainedModel):
    """The encoders, the window-level Q-Former and the LLM without its head.

    With `config.batch_invariant` a clip's tokens are those it has alone, up to rounding. The release's are not: where a
    batch pads a clip with zeros, BEATs' outputs on them, normalised, reach the Q-Former as if they were sound, and the
    last patches of the clip itself come or go with the length it is padded to. Alone, a clip is the same in both.
    """

    def __init__(self, config: SalmonnConfig):
        super().__init__(config)
        self.speech_encoder = WhisperEncoder(config.speech_config)
        self.beats = AutoModel.from_config(config.beats_config) if config.beats_config else None
        self.qformer = WindowQFormer(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What may stand among the text."""
        config = self.config
        inputs = ("input_features", "fbank", "fbank_mask")
        return (
            Modality("audio", config.audio_token_id, config.num_audio_tokens, inputs, self.get_audio_features),
        )  # fmt: skip

    def get_audio_features(
        self,
        input_features: torch.Tensor,
        fbank: torch.Tensor | None = None,
        fbank_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hear clips.

        Args:
            input_features: [clips, mel, 2 * positions], Whisper's.
            fbank: [clips, F, 128], for BEATs.
            fbank_mask: [clips, F], true on the clips' own frames; None: all are.

        Returns:
            [clips, `config.num_audio_tokens`, hidden size of the LLM].
        """
        with gradients_if_trainable(self.speech_encoder):
            speech = self.speech_encoder(input_features.to(self.speech_encoder.dtype)).last_hidden_state
        if self.beats is None:
            return self.qformer(speech)
        if fbank is None:
            raise ValueError("found input_features without fbank; a model with BEATs needs both")
        with gradients_if_trainable(self.beats):
            audio = self.beats(fbank, fbank_mask, batch_invariant=self.config.batch_invariant)
        return self.qformer(speech, audio.last_hidden_state, audio.patch_mask if self.config.batch_invariant else None)

    def embed(self, input_ids: torch.Tensor, inputs: dict[str, torch.Tensor | None], check_empty: bool) -> torch.Tensor:
        """Text embeddings [B, T, D] with each modality's features in the places of its placeholders, row by row.

        Raises:
            ValueError: placeholders and features differ in number. Placeholders without any features are looked for
                only with `check_empty`.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        for modality in self.modalities:
            given = [inputs.get(name) for name in modality.inputs]
            items = 0 if given[0] is None else len(given[0])
            if not items and not check_empty:
                continue
            places = input_ids == modality.token_id
            if places.sum() != items * modality.tokens:
                raise ValueError(
                    f"found {int(places.sum())} {modality.name} placeholders (token {modality.token_id}) in input_ids "
                    f"and {items} items in {modality.inputs[0]}; each item takes {modality.tokens}"
                )
            if items:
                features = modality.encode(*given).to(embeddings)
                embeddings = embeddings.masked_scatter(places[..., None], features)
        return embeddings

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        fbank: torch.Tensor | None = None,
        fbank_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> BaseModelOutputWithPast:
        """Run the LLM over text and what stands among it.

        Args:
            input_ids: [B, T], with `config.num_audio_tokens` placeholders for each clip.
            input_features, fbank, fbank_mask: of all clips of the batch, row by row; see `get_audio_features`.
            inputs_embeds: [B, T, D] in place of all of these.
        """
        inputs = {"input_features": input_features, "fbank": fbank, "fbank_mask": fbank_mask}
        return self._run(input_ids, inputs, attention_mask, position_ids, past_key_values, inputs_embeds, **kwargs)

    def _run(
        self,
        input_ids: torch.Tensor | None,
        inputs: dict[str, torch.Tensor | None],
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        past_key_values: Cache | None,
        inputs_embeds: torch.Tensor | None,
        **kwargs: object,
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if input_ids is not None:
            starts = past_key_values is None or past_key_values.get_seq_length() == 0
            inputs_embeds = self.embed(input_ids, inputs, check_empty=starts)
        return self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )


class SalmonnForConditionalGeneration(SalmonnPreTrainedModel, GenerationMixin):
    """`SalmonnModel` with the LLM's head: answers to text and sound."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012
    model_class: type[SalmonnModel] = SalmonnModel

    def __init__(self, config: SalmonnConfig):
        super().__init__(config)
        self.model = self.model_class(config)
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
        """As `SalmonnModel.forward`, with logits.

        Args:
            labels: [B, T], -100 where none; gives the mean loss of the next tokens.
            logits_to_keep: the last so many positions, 0 for all; or the positions themselves, as transformers has it.
        """
        outputs = self.model(
            input_ids=input_ids,
            input_features=input_features,
            fbank=fbank,
            fbank_mask=fbank_mask,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        return self._answer(outputs, labels, logits_to_keep, **kwargs)

    def _answer(
        self,
        outputs: BaseModelOutputWithPast,
        labels: torch.Tensor | None,
        logits_to_keep: int | torch.Tensor,
        **kwargs: object,
    ) -> CausalLMOutputWithPast:
        assert outputs.last_hidden_state is not None
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """As transformers', for rows that hold any number of items: a beam needs all of its row's, in their order."""
        items: dict[str, torch.Tensor] = {}
        if expand_size > 1 and input_ids is not None:
            for modality in self.model.modalities:
                counts = (input_ids == modality.token_id).sum(dim=1) // modality.tokens
                rows = torch.arange(int(counts.sum()), device=counts.device).split(counts.tolist())
                order = torch.cat([row for row in rows for _ in range(expand_size)])
                for name in modality.inputs:
                    value = model_kwargs.pop(name, None)
                    if isinstance(value, torch.Tensor):
                        items[name] = value[order]
        input_ids, model_kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size,
            is_encoder_decoder,
            input_ids,  # type: ignore[arg-type]
            **model_kwargs,
        )
        return input_ids, {**model_kwargs, **items}


def gradients_if_trainable(module: nn.Module) -> contextlib.AbstractContextManager:
    """No autograd graph inside a frozen encoder, even where gradient checkpointing makes its inputs ask for one."""
    trainable = any(parameter.requires_grad for parameter in module.parameters())
    return contextlib.nullcontext() if trainable else torch.no_grad()

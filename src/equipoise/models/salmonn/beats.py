"""BEATs, the audio encoder of Chen et al. (ICML 2023): filter banks in 16 x 16 patches, through a transformer.

The transformer's marks are a convolution for absolute positions, a bucketed bias for relative ones that every head
gates by its query (as WavLM does), and DeepNorm's residual scaling. The released classifier head is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import ModelOutput

from equipoise.models.salmonn.configuration import BeatsConfig


@dataclass
class BeatsOutput(ModelOutput):
    """Features [B, N, D], one a patch, and the mask [B, N] of those that stand for the clip; None where all do."""

    last_hidden_state: torch.Tensor | None = None
    patch_mask: torch.Tensor | None = None


class ConvolutionalPositions(nn.Module):
    """Adds a grouped convolution of the sequence to it."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        kernel = config.num_conv_pos_embeddings
        self.conv = weight_norm(
            nn.Conv1d(
                config.hidden_size,
                config.hidden_size,
                kernel,
                padding=kernel // 2,
                groups=config.num_conv_pos_embedding_groups,
            ),
            dim=2,
        )

    def forward(self, hidden_BND: torch.Tensor) -> torch.Tensor:
        convolved = self.conv(hidden_BND.transpose(1, 2))[..., : hidden_BND.shape[1]]
        return hidden_BND + F.gelu(convolved).transpose(1, 2)


class RelativePositionBias(nn.Embedding):
    """T5's bidirectional buckets: exact up to a quarter of them, then logarithmic up to `max_distance`."""

    def __init__(self, config: BeatsConfig):
        super().__init__(config.num_buckets, config.num_attention_heads)
        self.max_distance = config.max_distance

    def forward(self, length: int) -> torch.Tensor:  # type: ignore[override]
        """The bias [H, length, length] of each key (last) for each query."""
        position = torch.arange(length, device=self.weight.device)
        relative = position[None, :] - position[:, None]
        half = self.num_embeddings // 2
        exact = half // 2
        distance = relative.abs()
        scale = math.log(self.max_distance / exact)
        far = exact + (torch.log(distance.clamp(min=1).float() / exact) / scale * (half - exact)).long()
        bucket = torch.where(distance < exact, distance, far.clamp(max=half - 1)) + (relative > 0) * half
        return super().forward(bucket).permute(2, 0, 1)


class GatedAttention(nn.Module):
    """Self-attention whose position bias each head scales by a gate that it computes from the query."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        width = config.hidden_size
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.gate = nn.Linear(width // self.heads, 8)
        self.gate_scale = nn.Parameter(torch.ones(self.heads, 1, 1))

    def forward(self, hidden_BND: torch.Tensor, bias_HNN: torch.Tensor, mask_B11N: torch.Tensor | None) -> torch.Tensor:
        query, key, value = (
            projection(hidden_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Eight gate inputs a head, four summed for each of two gates.
        update, reset = self.gate(query).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        bias = (update * (reset * self.gate_scale - 1) + 2) * bias_HNN
        if mask_B11N is not None:
            bias = bias.masked_fill(~mask_B11N, -torch.inf)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class BeatsLayer(nn.Module):
    """Post-norm transformer layer; residuals are scaled by (2 x layers)^(1/4), as DeepNorm does."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.residual_scale = (2 * config.num_hidden_layers) ** 0.25
        self.self_attn = GatedAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACT2FN[config.hidden_act]
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, hidden_BND: torch.Tensor, bias_HNN: torch.Tensor, mask_B11N: torch.Tensor | None) -> torch.Tensor:
        attended = self.hidden_dropout(self.self_attn(hidden_BND, bias_HNN, mask_B11N))
        hidden_BND = self.self_attn_layer_norm(hidden_BND * self.residual_scale + attended)
        expanded = self.activation_dropout(self.activation(self.fc1(hidden_BND)))
        return self.final_layer_norm(hidden_BND * self.residual_scale + self.hidden_dropout(self.fc2(expanded)))


class BeatsModel(PreTrainedModel):
    """Filter banks [B, F, 128] to features [B, N, D]: N = F // 16 * 8 patches, the low bins of a moment first."""

    config: BeatsConfig
    config_class = BeatsConfig
    main_input_name = "fbank"
    input_modalities = "audio"
    _supports_sdpa = True
    _input_embed_layer = "patch_embedding"

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        self.patch_embedding = nn.Conv2d(
            1, config.patch_embed_dim, config.patch_size, stride=config.patch_size, bias=config.conv_bias
        )
        self.patch_norm = nn.LayerNorm(config.patch_embed_dim, eps=config.layer_norm_eps)
        self.patch_projection = (
            nn.Linear(config.patch_embed_dim, config.hidden_size)
            if config.patch_embed_dim != config.hidden_size
            else nn.Identity()
        )
        self.positions = ConvolutionalPositions(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.position_bias = RelativePositionBias(config)
        self.layers = nn.ModuleList([BeatsLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ConvolutionalPositions):
            parts = module.conv.parametrizations.weight
            length, direction = parts.original0, parts.original1
            init.normal_(direction, std=math.sqrt(4 / (module.conv.kernel_size[0] * module.conv.in_channels)))
            init.copy_(length, torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True))
            init.zeros_(module.conv.bias)
        elif isinstance(module, GatedAttention):
            init.ones_(module.gate_scale)
        elif not hasattr(module, "parametrizations"):
            super()._init_weights(module)

    def forward(
        self,
        fbank: torch.Tensor,
        fbank_mask: torch.Tensor | None = None,
        batch_invariant: bool = True,
        **_: object,
    ) -> BeatsOutput:
        """Encode clips.

        Args:
            fbank: [B, F, num_mel_bins], normalised.
            fbank_mask: [B, F], true on the clips' frames, false on what pads them.
            batch_invariant: a patch counts as the clip's if all its frames are, so that the clip has the patches it has
                alone; otherwise by the rule of the release (see `patch_mask`).
        """
        patches = self.patch_embedding(fbank[:, None].to(self.patch_embedding.weight.dtype))
        bands = patches.shape[-1]
        hidden = self.patch_projection(self.patch_norm(patches.flatten(2).transpose(1, 2)))
        mask = None
        if fbank_mask is not None and not fbank_mask.all():
            mask = patch_mask(fbank_mask.bool(), self.config.patch_size, bands, batch_invariant)
            hidden = hidden.masked_fill(~mask[..., None], 0)
        hidden = self.dropout(self.layer_norm(self.positions(hidden)))
        bias_HNN = self.position_bias(hidden.shape[1])
        for layer in self.layers:
            hidden = layer(hidden, bias_HNN, None if mask is None else mask[:, None, None])
        return BeatsOutput(last_hidden_state=hidden, patch_mask=mask)


def patch_mask(frame_mask: torch.Tensor, patch_size: int, bands: int, batch_invariant: bool) -> torch.Tensor:
    """From a mask over frames [B, F] to one over patches [B, F // patch_size * bands].

    The release divides the frames evenly among the patches, as if patches followed one another in time, and takes a
    patch for padding if all its share is; a clip's last patches then depend on the length it is padded to.
    """
    steps = frame_mask.shape[1] // patch_size
    if batch_invariant:
        whole = frame_mask[:, : steps * patch_size].unflatten(1, (steps, patch_size)).all(-1)
        return whole.repeat_interleave(bands, dim=1)
    share = frame_mask.shape[1] // (steps * bands)
    return frame_mask[:, : steps * bands * share].unflatten(1, (steps * bands, share)).any(-1)

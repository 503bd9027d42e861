"""Configurations of SALMONN and of its BEATs encoder; the defaults are the released SALMONN-7B's."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

from transformers import AutoConfig, Blip2QFormerConfig, PreTrainedConfig, WhisperConfig
from transformers.configuration_utils import SubConfigSpec

# Whisper's convolutions halve its 100 mel frames a second.
POSITIONS_PER_SECOND = 50


class BeatsConfig(PreTrainedConfig):
    """BEATs (Chen et al., ICML 2023) as all its releases are: post-norm with DeepNorm, gated position bias.

    Attributes:
        patch_size: side of the square patches that the filter banks are cut into, in frames and in bins.
        patch_embed_dim: width of a patch before its projection to `hidden_size`.
        num_buckets, max_distance: of the relative position bias, in patches.
    """

    model_type = "beats"
    base_config_key = "beats_config"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    num_mel_bins: int = 128
    patch_size: int = 16
    patch_embed_dim: int = 512
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02


class SalmonnConfig(PreTrainedConfig):
    """Whisper and, unless `beats_config` is None, BEATs; a window-level Q-Former; an LLM.

    Attributes:
        text_config: any decoder that `AutoModel` knows. Its vocabulary holds the audio placeholder.
        speech_config: Whisper's; only its encoder is built. `max_source_positions` bounds a clip's length, 50 a second.
        qformer_config: its `encoder_hidden_size` follows from the encoders.
        second_per_window, second_stride: the Q-Former's window and step, in seconds.
        num_query_tokens: tokens the Q-Former emits for each window.
        audio_token_id: the placeholder that a clip's tokens replace.
        batch_invariant: a clip's features do not depend on the clips beside it. The release lets BEATs' output on the
            zeros that pad a shorter clip reach the Q-Former; False reproduces that.
    """

    model_type = "salmonn"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(
            AutoConfig,
            model_type="llama",
            # Vicuna-7B v1.5 with two more tokens, for padding and for audio
            init_kwargs={"vocab_size": 32002, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        ),
        "speech_config": SubConfigSpec(
            WhisperConfig,
            init_kwargs={  # large-v2
                "d_model": 1280,
                "encoder_layers": 32,
                "encoder_attention_heads": 20,
                "encoder_ffn_dim": 5120,
                "num_mel_bins": 80,
                "max_source_positions": 1500,
            },
        ),
        "beats_config": SubConfigSpec(BeatsConfig, optional=True),
        "qformer_config": SubConfigSpec(
            Blip2QFormerConfig, init_kwargs={"num_hidden_layers": 2, "cross_attention_frequency": 1}
        ),
    }

    # Given as a config, a dict or None for the default above; afterwards a config.
    text_config: Any = None
    speech_config: Any = None
    beats_config: Any = field(default_factory=dict)  # None stays None
    qformer_config: Any = None
    second_per_window: float = 0.333333
    second_stride: float = 0.333333
    num_query_tokens: int = 1
    audio_token_id: int = 32001
    batch_invariant: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        width = self.speech_config.d_model + (self.beats_config.hidden_size if self.beats_config else 0)
        self.qformer_config.encoder_hidden_size = width
        self.tie_word_embeddings = self.tie_word_embeddings or bool(self.text_config.tie_word_embeddings)

    @property
    def window(self) -> int:
        """Positions in a window."""
        return round(POSITIONS_PER_SECOND * self.second_per_window)

    @property
    def stride(self) -> int:
        """Positions from one window's start to the next one's."""
        return round(POSITIONS_PER_SECOND * self.second_stride)

    @property
    def num_audio_tokens(self) -> int:
        """Tokens a clip becomes, whatever its length: Whisper pads it to `max_source_positions`."""
        windows = (self.speech_config.max_source_positions - self.window) // self.stride + 1
        return windows * self.num_query_tokens

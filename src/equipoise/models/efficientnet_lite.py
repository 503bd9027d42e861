"""EfficientNet-Lite0 as a transformers vision model, so that LLaVA can carry it as its vision tower.

transformers' own EfficientNet always has squeeze-and-excitation and SiLU, which the Lite variants dropped, and timm
needs torchvision. The tower returns its last feature map as one sequence of patch tokens. BatchNorm always runs on its
stored statistics: instruction tuning sees batches far too small and too narrow to re-estimate them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

# (repeats, kernel size, stride, expansion, output channels) of each stage; Tan and Le 2019, table 1, as Lite0 uses it.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32


class EfficientNetLiteConfig(PreTrainedConfig):
    """Facts of the tower that LLaVA's projector and processor need: 32 pixels a patch, 1280 features a patch."""

    model_type = "efficientnet_lite"
    base_config_key = "vision_config"

    hidden_size: int = 1280
    patch_size: int = 32
    image_size: int = 128
    stages: tuple | list = STAGES
    initializer_range: float = 0.02


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME does, which is not symmetric at stride 2."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        padding = []
        for size, kernel, stride in zip(reversed(input.shape[-2:]), self.kernel_size, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(input, padding), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ConvNormAct(nn.Sequential):
    """Convolution, BatchNorm (epsilon 1e-3) and, unless `act` is off, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True):
        layers: list[nn.Module] = [
            SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
        ]
        super().__init__(*layers, *([nn.ReLU6()] if act else []))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the input is added back where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvNormAct(inputs, hidden) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNormAct(hidden, hidden, kernel, stride, groups=hidden)
        self.project = ConvNormAct(hidden, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        projected = self.project(self.depthwise(self.expand(features)))
        return features + projected if self.residual else projected


class EfficientNetLiteModel(PreTrainedModel):
    """The convolutional trunk: images [B, 3, H, W] to patch tokens [B, (H/32)*(W/32), 1280]."""

    config: EfficientNetLiteConfig
    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"
    input_modalities = "image"

    def __init__(self, config: EfficientNetLiteConfig):
        super().__init__(config)
        self.stem = ConvNormAct(3, STEM_CHANNELS, kernel=3, stride=2)
        blocks, channels = [], STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in config.stages:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if repeat == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvNormAct(channels, config.hidden_size)
        self.post_init()

    def train(self, mode: bool = True) -> EfficientNetLiteModel:
        """As `nn.Module.train`, but BatchNorm stays on its stored statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, pixel_values: torch.Tensor, **_: object) -> BaseModelOutput:
        """Encode images.

        Args:
            pixel_values: [B, 3, H, W], scaled as (x255 - 127) / 128.

        Returns:
            `last_hidden_state` [B, T, 1280] with T = ceil(H/32) * ceil(W/32), row by row; `hidden_states` holds it
            alone, which is what LLaVA's `vision_feature_layer=-1` reads.
        """
        features = self.stem(pixel_values.to(self.dtype))
        for block in self.blocks:
            features = block(features)
        tokens = self.head(features).flatten(2).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


def convert_state_dict(original: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of `efficientnet-lite-pytorch` to this class's names; its classifier is dropped.

    Raises:
        KeyError: a weight that belongs to no part of the tower.
    """
    parts = {"conv": "0", "bn": "1"}
    converted = {}
    for name, value in original.items():
        path, _, leaf = name.rpartition(".")
        if path == "_fc":
            continue
        if path in ("_conv_stem", "_bn0"):
            target = f"stem.{parts['conv' if 'conv' in path else 'bn']}"
        elif path in ("_conv_head", "_bn1"):
            target = f"head.{parts['conv' if 'conv' in path else 'bn']}"
        elif path.startswith("_blocks."):
            _, index, layer = path.split(".")
            stage = {
                "_expand_conv": "expand.0",
                "_bn0": "expand.1",
                "_depthwise_conv": "depthwise.0",
                "_bn1": "depthwise.1",
                "_project_conv": "project.0",
                "_bn2": "project.1",
            }[layer]
            # The first block does not expand, so its BatchNorms are still numbered from 1.
            target = f"blocks.{index}.{stage}"
        else:
            raise KeyError(f"unexpected weight {name} in an EfficientNet-Lite checkpoint")
        converted[f"{target}.{leaf}"] = value
    return converted


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)

"""What the parameters of each family's toy checkpoint are part of, and what of it learns: written down by hand."""

from __future__ import annotations

import re

LLAVA = {
    "projector": {"model.multi_modal_projector"},
    "vision_tower": {"model.vision_tower"},
    "llm": {"model.language_model", "lm_head"},
}
AUDIO = {
    "projector": {"model.multi_modal_projector"},
    "audio_tower": {"model.audio_tower"},
    "llm": {"model.language_model", "lm_head"},
}
SALMONN = {
    "qformer": {"model.qformer"},
    "audio_tower": {"model.speech_encoder", "model.beats"},
    "llm": {"model.language_model", "lm_head"},
}
#: Family to module to the beginnings of its parameters' names.
PARTS: dict[str, dict[str, set[str]]] = {
    "llava": LLAVA,
    "llava_qformer": {
        "qformer": {"model.multi_modal_projector"},
        "vision_tower": {"model.vision_tower"},
        "llm": {"model.language_model", "lm_head"},
    },
    "blip2": {
        "qformer": {"query_tokens", "qformer", "language_projection"},
        "vision_tower": {"vision_model"},
        "llm": {"language_model"},
    },
    "paligemma": LLAVA,
    "internvl": LLAVA,
    "qwen2_5_vl": {
        "projector": {"model.visual.merger"},
        "vision_tower": {"model.visual.patch_embed", "model.visual.blocks"},
        "llm": {"model.language_model", "lm_head"},
    },
    "qwen3_vl": {
        "projector": {"model.visual.merger", "model.visual.deepstack_merger_list"},
        "vision_tower": {"model.visual.patch_embed", "model.visual.pos_embed", "model.visual.blocks"},
        "llm": {"model.language_model", "lm_head"},
    },
    "smolvlm": {
        "projector": {"model.connector"},
        "vision_tower": {"model.vision_model"},
        "llm": {"model.text_model", "lm_head"},
    },
    "qwen2_audio": AUDIO,
    "voxtral": AUDIO,
    "idefics": {
        "projector": {"model.perceiver_resampler"},
        "cross_attention": {"model.gated_cross_attn_layers"},
        "vision_tower": {"model.vision_model"},
        "llm": {"model.embed_tokens", "model.layers", "model.norm", "lm_head"},
    },
    "mllama": {
        "projector": {"model.multi_modal_projector"},
        "cross_attention": {"model.language_model.layers.1"},
        "vision_tower": {"model.vision_model"},
        "llm": {
            "model.language_model.embed_tokens", "model.language_model.layers.0", "model.language_model.layers.2",
            "model.language_model.norm", "lm_head",
        },
    },
    "flamingo": {
        "cross_attention": {"model.language_model.layers.1.cross_attention"},
        "vision_tower": {"model.vision_tower"},
        "llm": {
            "model.language_model.embed_tokens", "model.language_model.layers.0",
            "model.language_model.layers.1.layer", "model.language_model.norm", "lm_head",
        },
    },
    "salmonn": SALMONN,
    "audio_vision": {
        "projector": {"model.multi_modal_projector"}, "vision_tower": {"model.vision_tower"}, **SALMONN,
    },
}  # fmt: skip
LLAMA_LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
OPT_LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2")
DECODERS = {"smolvlm": "model.text_model", "idefics": "model", "blip2": "language_model.model.decoder"}
CONNECTORS = frozenset({"projector", "qformer", "cross_attention"})
# With one query a window a softmax has nothing to choose from; a bias of all keys shifts nothing.
NEVER_MOVES = {
    family: re.compile(r"model\.qformer\.transformer\.encoder\.layer\.\d\.attention\.attention\.(query|key)\.")
    for family in ("salmonn", "audio_vision")
}
MAY_REST = re.compile(r"(key|k_proj)\.bias$")


def lora_layers(family: str) -> set[str]:
    """The names of the layers that LoRA is for: of both of the toy LLM's layers, all that are linear."""
    numbers = {"mllama": ("0", "2"), "flamingo": ("0", "1.layer")}.get(family, ("0", "1"))
    decoder = DECODERS.get(family, "model.language_model")
    leaves = OPT_LAYERS if family == "blip2" else LLAMA_LAYERS
    return {f"{decoder}.layers.{number}.{leaf}" for number in numbers for leaf in leaves}


def trained(family: str, names: set[str]) -> set[str]:
    """Which of a model's parameters the default recipe trains, LoRA's among them, by their names in the bare model."""
    starts = [start for module, starts in PARTS[family].items() if module in CONNECTORS for start in starts]
    full = {name for name in names if any(lies_in(name, start) for start in starts)}
    return full | {f"{layer}.lora_{kind}.default.weight" for layer in lora_layers(family) for kind in "AB"}


def lies_in(name: str, start: str) -> bool:
    """Whether a parameter is this one or inside this module."""
    return name == start or name.startswith(f"{start}.")


def bare(name: str) -> str:
    """A parameter's name without what peft puts in."""
    return re.sub(r"^base_model\.model\.|\.modules_to_save\.default|\.base_layer", "", name)

"""The Flamingo kind, which reads images through cross-attention layers inside the decoder: Idefics, Mllama, ours."""

from __future__ import annotations

from transformers import (
    CLIPVisionConfig,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    IdeficsProcessor,
    LlamaConfig,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from equipoise.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration, FlamingoProcessor
from models.zoo.words import TEXT, ids, tokenizer

MLLAMA_TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|image|>' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

FLAMINGO_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def idefics() -> tuple[IdeficsForVisionText2Text, IdeficsProcessor]:
    """CLIP-style ViT, perceiver resampler, a gated cross-attention layer before each of Llama's layers."""
    words = tokenizer(["<unk>", "<s>", "</s>"], bos="<s>", eos="</s>", pad="<unk>", add_bos=True)
    text = ids(words)
    added = ["<fake_token_around_image>", "<image>"]  # behind the LLM's own vocabulary, in an embedding of their own
    words.add_special_tokens({"additional_special_tokens": added})
    config = IdeficsConfig(
        **TEXT,
        **text,
        additional_vocab_size=len(added),
        cross_layer_interval=1,
        qk_layer_norms=True,
        use_resampler=True,
        vision_config={
            "embed_dim": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 16, "patch_size": 8, "initializer_range": 0.1,
        },
        perceiver_config={
            "use_resampler": True, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2,
            "resampler_head_dim": 8, "qk_layer_norms_perceiver": True,
        },
    )  # fmt: skip
    return IdeficsForVisionText2Text(config), IdeficsProcessor(IdeficsImageProcessorPil(image_size=16), words)


def mllama() -> tuple[MllamaForConditionalGeneration, MllamaProcessor]:
    """ViT over up to four tiles, linear projector, Llama with a cross-attention layer between its two layers."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
               "<|python_tag|>", "<|finetune_right_pad_id|>"]  # fmt: skip
    words = tokenizer(special, bos="<|begin_of_text|>", eos="<|eot_id|>", pad="<|finetune_right_pad_id|>", add_bos=True)
    text = ids(words)
    words.add_special_tokens({"additional_special_tokens": ["<|image|>"]})  # an input only: the head has no row for it
    config = MllamaConfig(
        vision_config={
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_global_layers": 1,
            "attention_heads": 2, "image_size": 16, "patch_size": 8, "intermediate_layers_indices": [0],
            "vision_output_dim": 32, "initializer_range": 0.1,
        },
        text_config={
            **TEXT, **text, "num_hidden_layers": 3, "num_key_value_heads": 2, "cross_attention_layers": [1],
        },
        image_token_index=words.convert_tokens_to_ids("<|image|>"),
    )  # fmt: skip
    images = MllamaImageProcessorPil(size={"height": 16, "width": 16}, max_image_tiles=4)
    return MllamaForConditionalGeneration(config), MllamaProcessor(images, words, chat_template=MLLAMA_TEMPLATE)


def flamingo() -> tuple[FlamingoForConditionalGeneration, FlamingoProcessor]:
    """CLIP, a gated cross-attention layer before the second of Llama's two layers."""
    words = tokenizer(["<unk>", "<|im_start|>", "<|im_end|>", "<pad>", "<image>"], eos="<|im_end|>", pad="<pad>")
    config = FlamingoConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16,
            patch_size=8, initializer_range=0.1,
        ),
        text_config=LlamaConfig(**TEXT, **ids(words), num_key_value_heads=2),
        cross_layers=[1],
        image_token_id=words.convert_tokens_to_ids("<image>"),
        initializer_range=0.2,
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return FlamingoForConditionalGeneration(config), FlamingoProcessor(images, words, chat_template=FLAMINGO_TEMPLATE)

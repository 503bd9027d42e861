"""Image families whose processors are complete without torchvision: LLaVA-1.5, BLIP-2, PaliGemma."""

from __future__ import annotations

from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPVisionConfig,
    GemmaConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    OPTConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipVisionConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from equipoise.models.llava_qformer import LlavaQFormerConfig, LlavaQFormerForConditionalGeneration
from models.zoo.words import TEXT, ids, tokenizer

SIZE = {"height": 16, "width": 16}
TOWER = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip

# As the llava-hf repositories have it: roles in capitals, images first, no end-of-sequence token after an answer.
LLAVA_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def llava(qformer: bool = False) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """CLIP, two-layer projector or a Q-Former that asks three questions, Llama."""
    words = tokenizer(
        ["<unk>", "<s>", "</s>", "<image>", "<pad>"], bos="<s>", eos="</s>", pad="<pad>", add_bos=True,
        named={"image_token": "<image>"},
    )  # fmt: skip
    common = {
        "vision_config": CLIPVisionConfig(**TOWER),
        "text_config": LlamaConfig(**TEXT, **ids(words), num_key_value_heads=2),
        "image_token_index": words.convert_tokens_to_ids("<image>"),
        "tie_word_embeddings": False,
    }
    small = Blip2QFormerConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, cross_attention_frequency=1,
        initializer_range=0.2,
    )  # fmt: skip
    model = (
        LlavaQFormerForConditionalGeneration(LlavaQFormerConfig(**common, qformer_config=small, num_query_tokens=3))
        if qformer
        else LlavaForConditionalGeneration(LlavaConfig(**common, image_seq_length=4))
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIZE),
        tokenizer=words,
        patch_size=8,
        num_additional_image_tokens=0 if qformer else 1,
        vision_feature_select_strategy="default",
        image_token="<image>",
        chat_template=LLAVA_TEMPLATE,
    )
    return model, processor


def llava_qformer() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """CLIP, BLIP-2's Q-Former, Llama."""
    return llava(qformer=True)


def blip2() -> tuple[Blip2ForConditionalGeneration, Blip2Processor]:
    """EVA-style ViT, Q-Former with cross-attention in every second layer, OPT (whose BOS is `</s>`)."""
    words = tokenizer(["<s>", "<pad>", "</s>"], bos="</s>", eos="</s>", pad="<pad>", add_bos=True)
    queries = 4
    processor = Blip2Processor(BlipImageProcessorPil(size=SIZE), words, num_query_tokens=queries)  # adds <image>
    text = OPTConfig(
        hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, init_std=0.1, dropout=0.0, tie_word_embeddings=False, **ids(words),
    )  # fmt: skip
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**TOWER, initializer_range=0.1),
        qformer_config=Blip2QFormerConfig(
            vocab_size=32, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            cross_attention_frequency=2, initializer_range=0.1,
        ),
        text_config=text,
        num_query_tokens=queries,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        initializer_range=0.1,
        tie_word_embeddings=False,
    )  # fmt: skip
    return Blip2ForConditionalGeneration(config), processor


def paligemma() -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """SigLIP, linear projector, Gemma; the prefix attends in both directions."""
    words = tokenizer(["<pad>", "<eos>", "<bos>", "<unk>"], bos="<bos>", eos="<eos>", pad="<pad>", add_bos=True)
    images = SiglipImageProcessorPil(size=SIZE)
    images.image_seq_length = 4
    processor = PaliGemmaProcessor(images, words)  # adds <image>, <loc....> and <seg...>
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=GemmaConfig(**TEXT, **ids(words), num_key_value_heads=1, head_dim=8),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vocab_size=len(words),
        projection_dim=32,
        hidden_size=32,
        tie_word_embeddings=False,
    )
    return PaliGemmaForConditionalGeneration(config), processor

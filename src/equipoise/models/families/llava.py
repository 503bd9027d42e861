"""LLaVA-1.5: CLIP ViT-L/14 at 336 pixels, a two-layer MLP projector, Vicuna (Liu et al. 2023)."""

from __future__ import annotations

from equipoise.models.families.family import Family

LLAVA = Family(
    model_types=("llava",),
    modules={"projector": ("multi_modal_projector",), "vision_tower": ("vision_tower",)},
    trained=frozenset({"projector"}),
    # Vicuna v1.1's format. The released processors' own leaves out the <s> and the </s>, without which no model
    # learns to stop.
    chat_template="""\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
USER: {% for part in message['content'] if part['type'] == 'image' %}<image>
{% endfor %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %} {% endif -%}
{%- if message['role'] == 'system' -%}
{% for part in message['content'] %}{{ part['text'] }}{% endfor %} {% endif -%}
{%- if message['role'] == 'assistant' -%}
ASSISTANT: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{% endif -%}
""",
    source="CoMMIT, Appendix B.4: the projection layer is fine-tuned, the visual encoder frozen",
)

"""BLIP-2: EVA-CLIP ViT-g, a Q-Former with learned queries, a linear map, OPT (Li et al. 2023)."""

from __future__ import annotations

from equipoise.models.families.family import Family

BLIP2 = Family(
    model_types=("blip-2",),
    modules={
        # The queries and the linear map into the LLM were trained with the Q-Former, and are its input and output.
        "qformer": ("qformer", "query_tokens", "language_projection"),
        "vision_tower": ("vision_model",),
        # FLAN-T5's encoder is of the LLM too.
        "llm": ("language_model",),
    },
    trained=frozenset({"qformer"}),
    # The form in which BLIP-2 was shown questions; its processor puts the image's tokens in front of everything.
    chat_template="""\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{% for part in message['content'] %}{{ part['text'] }}{% endfor %} {% endif -%}
{%- if message['role'] == 'user' -%}
Question: {% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %} {% endif -%}
{%- if message['role'] == 'assistant' -%}
Answer: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}Answer:{% endif -%}
""",
    source="CoMMIT, Appendix B.4: the Q-Former is fine-tuned, the visual encoder frozen",
)

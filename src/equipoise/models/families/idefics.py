"""Idefics 1, after Flamingo: CLIP, a perceiver resampler, gated cross-attention layers between Llama's own."""

from __future__ import annotations

from dataclasses import replace

from equipoise.models.families.generic import GENERIC

IDEFICS = replace(
    GENERIC,
    model_types=("idefics",),
    chat_template="""\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}User: {% endif -%}
{%- if message['role'] == 'assistant' -%}Assistant: {% endif -%}
{%- for part in message['content'] if part['type'] == 'image' -%}<image>{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- endif -%}{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}
""",
    loss_from_logits=True,  # its loss does not know of the tokens added behind Llama's vocabulary
    source="the prompts in the model card of idefics-9b",
)

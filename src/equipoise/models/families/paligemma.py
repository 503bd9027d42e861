"""PaliGemma (1 and 2): SigLIP, a linear projector, Gemma whose prompt attends to itself in both directions."""

from __future__ import annotations

from dataclasses import replace

from equipoise.models.families.generic import GENERIC

PALIGEMMA = replace(
    GENERIC,
    model_types=("paligemma",),
    # Image tokens, <bos>, question, line break, answer, <eos>.
    chat_template="""\
{%- for message in messages -%}
{%- for part in message['content'] if part['type'] == 'image' -%}<image>{%- endfor -%}
{%- if loop.first -%}{{ bos_token }}{%- endif -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- else -%}{{ '\\n' }}{%- endif -%}
{%- endfor -%}
""",
    prefix_attention=True,
    source="Beyer et al. 2024, Section 3.2: prefix and suffix, joined by a line break",
)

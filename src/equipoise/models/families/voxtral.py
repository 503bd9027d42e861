"""Voxtral: a Whisper encoder over windows of 30 s, a projector over four frames, Mistral."""

from __future__ import annotations

from dataclasses import replace

from equipoise.models.families.generic import GENERIC

VOXTRAL = replace(
    GENERIC,
    model_types=("voxtral",),
    chat_template="""\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{%- for part in message['content'] -%}{{ part['text'] }}{%- endfor -%}{{ eos_token }}
{%- else -%}
[INST]
{%- for part in message['content'] if part['type'] == 'audio' -%}[BEGIN_AUDIO][AUDIO]{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
[/INST]
{%- endif -%}
{%- endfor -%}
""",
    source="mistral-common's instruct format, version 7, as text",
)

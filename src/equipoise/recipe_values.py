"""What single values of a recipe may be: the names that it takes, and its kinds of numbers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field

Schedule = Literal[
    "constant", "encoder-lr-up", "llm-lr-up", "feature-cd", "language-cd", "commit-clr", "commit"
]  # fmt: skip
Estimator = Literal["per-sample", "exact", "sampled", "lookback"]
ReaderName = Literal[
    "easy_vqa", "vega_charts", "rendered_text", "chatterbot", "tuxpaint", "asterisk",
    "freepats", "sonic_pi",
    "textvqa", "iconqa", "aokvqa", "vqav2", "gqa", "chartqa", "ocrvqa",
    "clothoaqa", "macs", "sdd", "sharegpt4v", "refcoco", "sharegpt",
    "llava", "jsonl", "parquet", "saved",
]  # fmt: skip
#: Readers of data that packages carry, which need no path.
PACKAGED = frozenset(
    {"easy_vqa", "vega_charts", "rendered_text", "chatterbot", "tuxpaint", "asterisk", "freepats", "sonic_pi"}
)
MetricName = Literal[
    "exact_match", "vqa_accuracy", "aokvqa_direct", "multiple_choice", "relaxed_accuracy",
    "cider", "cider_ptb", "rouge_l", "iou", "box_accuracy",
]  # fmt: skip
WeighterName = Literal["ew", "tla", "rlw", "dwa", "igbv1", "fixed", "cotbal"]
#: Names that are no files on Windows, whatever their ending.
DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{kind}{number}" for kind in ("COM", "LPT") for number in range(1, 10))}
)
SCHEDULES: tuple[str, ...] = get_args(Schedule)


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"found {str(value).lower()}; a number is expected")
    return value


# Python counts true as 1, a recipe does not. Texts pass as real numbers, for YAML 1.1 reads 1e-4 as one.
Count = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, strict=True)]
Real = Annotated[float, BeforeValidator(_no_truth_value)]
#: Of every section: it takes no key that it does not name, and does not change.
SECTION = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

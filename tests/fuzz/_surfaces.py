"""All surfaces, in the order of the table."""

from __future__ import annotations

from fuzz._surface import Surface

SURFACES = [
    Surface("recipe (YAML)", 12, "_recipes", "recipe_text"),
    Surface("overrides key=value", 14, "_recipes", "overrides"),
    Surface("reader files (JSON)", 16, "_readers", "json_files"),
    Surface("reader files (JSONL)", 10, "_readers", "jsonl_files"),
    Surface("reader files (CSV)", 6, "_readers", "csv_files"),
    Surface("reader files (YAML)", 3, "_readers", "yaml_files"),
    Surface("reader files (pickle)", 5, "_readers", "pickle_files"),
    Surface("reader files (gzip, text, PNG)", 3, "_readers", "other_files"),
    Surface("reader files (Parquet)", 4, "_readers", "parquet_files"),
    Surface("reader files (Arrow)", 1, "_readers", "arrow_files"),
    Surface("images", 11, "_media", "images"),
    Surface("audio", 9, "_media", "audio"),
    Surface("chat templates", 6, "_templates", "templates"),
    Surface("checkpoint's settings", 0.5, "_checkpoints", "settings_files", seconds=60.0),
    Surface("samples through processors", 0.5, "_checkpoints", "odd_samples"),
    Surface("table of `weights`", 14, "_tables", "weights"),
    Surface("table of `deltas`", 12, "_tables", "deltas"),
    Surface("run folder: report, diagnose", 0.7, "_folders", "runs"),
    Surface("balance folder: report, diagnose", 0.4, "_folders", "balances"),
    Surface("comparison: report, tables", 0.4, "_folders", "comparisons"),
    Surface("terminal", 2, "_folders", "screen"),
]

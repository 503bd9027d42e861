"""All surfaces, in the order of the table."""

from __future__ import annotations

from fuzz import _checkpoints, _folders, _media, _readers, _recipes, _tables, _templates
from fuzz._surface import Surface

SURFACES: list[Surface] = [
    *_recipes.SURFACES, *_readers.SURFACES, *_media.SURFACES, *_templates.SURFACES, *_checkpoints.SURFACES,
    *_tables.SURFACES, *_folders.SURFACES,
]  # fmt: skip

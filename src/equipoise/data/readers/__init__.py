"""One reader a dataset, each in a file of the name that recipes use."""

from __future__ import annotations

from importlib import import_module

from equipoise.data.readers.reader import Reader
from equipoise.recipe import ReaderName


def find_reader(name: ReaderName) -> Reader:
    """The reader of this name."""
    return import_module(f"{__name__}.{name}").READER

"""The errors that a user can mend. Each message is one line: what was found, where, and what is allowed."""


class EquipoiseError(Exception):
    """Base of all errors below; the command line prints its message and exits with status 2.

    Attributes:
        agreed: of several processes, whether all know of it.
    """

    agreed = False


class RecipeError(EquipoiseError):
    """A recipe that cannot be run as written."""


class PartitionError(EquipoiseError):
    """A model whose parameters cannot be divided into modules as asked."""


class DataError(EquipoiseError):
    """A dataset that is missing, empty or not in its published form."""


class AssetError(EquipoiseError):
    """A pinned package that cannot be fetched, or is not what its hash says."""


class RunError(EquipoiseError):
    """A run directory that cannot be used as asked."""


class DiskError(EquipoiseError):
    """A disk that is full, or that may not be written."""


class DivergenceError(EquipoiseError):
    """Training that cannot go on: its numbers are not finite, or nothing is left to learn from."""


class Elsewhere(EquipoiseError):
    """What ended another of several processes, which says it."""

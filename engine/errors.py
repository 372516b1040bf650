"""The exceptions of the project: each message names the place and says what to do next."""

from __future__ import annotations


class RayxaiError(Exception):
    """An error that a user can act on; shown without a traceback."""


class ConfigError(RayxaiError):
    """The configuration is wrong: unknown key, impossible value, labels that clash."""


class DataError(RayxaiError):
    """The data can't be read at all: missing file, no rows, no row that is usable."""


class ModelError(RayxaiError):
    """A model can't be found or loaded."""


class AdapterError(ModelError):
    """An adapter that is loaded has no effect, or reads otherwise than when it came."""


class TooLargeError(ModelError):
    """A model doesn't fit into the memory of its device."""


class RunFolderError(RayxaiError):
    """The run folder holds another configuration, is in use, or is of another format version."""


class ExampleError(RayxaiError):
    """One example can't be evaluated; it becomes a row of `failures/` and the sweep goes on.

    Attributes:
        code: A short stable name of the reason, for example `too_long` or `missing_field`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

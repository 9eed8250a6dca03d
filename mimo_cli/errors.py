"""The tree of errors that `mimo` raises on purpose.

Each carries the exit code of the command line and, where there is one, a hint: the next thing to try.
Anything else that escapes is a bug and shows a traceback under `--debug`.
"""


class MimoError(Exception):
    """Something failed while running (exit code 1)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(MimoError):
    """The request or one of its inputs is wrong (exit code 2)."""

    exit_code = 2


class MediaError(UsageError):
    """A picture, film or recording cannot be read or is outside the limits."""


class ContextOverflowError(UsageError):
    """The prompt needs more tokens than the context holds."""


class CheckpointError(MimoError):
    """Files of the model are missing, damaged or not what the configuration says (exit code 3)."""

    exit_code = 3


class CapacityError(MimoError):
    """Memory or disk does not suffice (exit code 4)."""

    exit_code = 4

"""What can go wrong, as one tree; each class knows the exit status of the shell command.

BioelxError                  1
├── UsageError               2  a bad argument, option, configuration value or input file
├── MissingExtraError        3  the work needs an extra that is not installed
├── MissingArtifactError     4  no index, encoder or prompt where one was expected
├── InvalidArtifactError     5  an artifact is broken, or was made by or for something else
└── RankerBackendError       6  the ranker's server cannot be reached or answers nonsense
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class BioelxError(Exception):
    """Base of every error raised on purpose; the message says what, the value and the mend."""

    exit_code = 1


class UsageError(BioelxError):
    """A bad argument, option, configuration value or input file."""

    exit_code = 2


class MissingExtraError(BioelxError):
    """The work needs an extra (`bioelx-mcp[build]`, `[vllm]`) that is not installed."""

    exit_code = 3


class MissingArtifactError(BioelxError):
    """An index, encoder or prompt is not where it was expected."""

    exit_code = 4


class InvalidArtifactError(BioelxError):
    """An artifact is broken, or does not belong with the others."""

    exit_code = 5


class RankerBackendError(BioelxError):
    """The ranker's model server cannot be reached or its answer cannot be used.

    `silent`: it gave no answer at all, so that a further request would wait in vain as well. `status`: of the
    HTTP answer that was an error.
    """

    exit_code = 6

    def __init__(self, message: str, *, silent: bool = False, status: int | None = None) -> None:
        super().__init__(message)
        self.silent = silent
        self.status = status


def problems(error: "ValidationError") -> list[tuple[str, str]]:
    """(dotted place, what is wrong there) for each problem that pydantic found, in its order."""
    return [
        (".".join(str(part) for part in problem["loc"]), problem["msg"])
        for problem in error.errors(include_url=False)
    ]

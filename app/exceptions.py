"""The faults a caller can meet, named by what went wrong and not by any HTTP status."""

from collections.abc import Mapping, Sequence


class LLMShellError(Exception):
    """Carry one sentence that tells the caller what to do.

    `extra` holds further machine-readable facts (pids, field names) that belong in the answer beside the sentence.
    """

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class BadRequestError(LLMShellError):
    """Say that the request itself must change before it can succeed."""

    def __init__(self, detail: str, errors: Mapping[str, Sequence[str]] | None = None, **extra: object) -> None:
        super().__init__(detail, **extra)
        self.errors = errors


class NotFoundError(LLMShellError):
    """Say that what was asked for does not exist."""


class ConflictError(LLMShellError):
    """Say that the request is sound but the present state forbids it."""


class InternalError(LLMShellError):
    """Say that the machine refused, in the system's own words."""

"""Runs in the master and the worker: the errors that a caller can get, named by their cause and not by HTTP status."""

from collections.abc import Mapping, Sequence


class LLMShellError(Exception):
    """Carry one sentence that says what the caller can do.

    `extra` holds machine-readable facts (pids, field names) for the answer, beside the sentence.
    """

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class BadRequestError(LLMShellError):
    """Report that the request itself must change before it can succeed."""

    def __init__(self, detail: str, errors: Mapping[str, Sequence[str]] | None = None, **extra: object) -> None:
        super().__init__(detail, **extra)
        self.errors = errors


class NotFoundError(LLMShellError):
    """Report that the requested run or path does not exist."""


class ConflictError(LLMShellError):
    """Report that the request is valid but the current state forbids it."""


class InternalError(LLMShellError):
    """Report that the system refused, with its own message."""

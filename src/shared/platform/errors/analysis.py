"""Errors of the analysis service."""

from __future__ import annotations

from shared.errors.base import ConflictError, NotFoundError


class AnalysisInProgressError(ConflictError):
    """A user is analysed once at a time."""

    code = "ANALYSIS_IN_PROGRESS"
    message = "Another analysis is already in progress"
    current_analysis_id: str | None = None
    user_id: str | None = None
    started_at: str | None = None


class AnalysisNotFoundError(NotFoundError):
    """No such analysis."""

    code = "ANALYSIS_NOT_FOUND"
    analysis_id: str | None = None
    user_id: str | None = None


class AnalysisNotCancellableError(ConflictError):
    """An analysis in this status cannot be cancelled."""

    code = "ANALYSIS_NOT_CANCELLABLE"
    analysis_id: str | None = None
    current_status: str | None = None
    reason: str | None = None


class NoCurrentAnalysisError(NotFoundError):
    """None of the user's analyses is complete."""

    code = "NO_CURRENT_ANALYSIS"
    message = "No completed analysis available"
    user_id: str | None = None

"""A path of the first design: what it names lives in `shared.platform.errors.analysis`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.platform.errors.analysis import (
        AnalysisInProgressError,
        AnalysisNotCancellableError,
        AnalysisNotFoundError,
        NoCurrentAnalysisError,
    )

__all__ = [
    "AnalysisInProgressError",
    "AnalysisNotCancellableError",
    "AnalysisNotFoundError",
    "NoCurrentAnalysisError",
]

__getattr__, __dir__ = handed_on(__name__)

"""A path of the first design: what it names lives in `shared.errors.foreign`."""

from shared.errors.foreign import (
    E,
    P,
    T,
    classify_http_error,
    is_retryable_error,
    with_error_mapping,
    wrap_external_error,
)

__all__ = [
    "E",
    "P",
    "T",
    "classify_http_error",
    "is_retryable_error",
    "with_error_mapping",
    "wrap_external_error",
]

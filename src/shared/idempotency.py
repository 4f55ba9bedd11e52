"""Keys under which the same work is recognised when it comes a second time."""

from __future__ import annotations

from urllib.parse import quote
from uuid import UUID

__all__ = ["generate_idempotency_key", "idempotency_key"]


def idempotency_key(*parts: str | int | UUID) -> str:
    """Return one key for ``parts``: equal for equal parts, different for different ones.

    Parts are compared by their text and joined with ``:``; what is neither an ASCII letter or
    digit nor one of ``_ . - ~`` is percent-encoded, so the key fits into any header.

    >>> idempotency_key("shopify", "order", 123456)
    'shopify:order:123456'
    >>> idempotency_key("a:b", "c") == idempotency_key("a", "b:c")
    False

    Raises:
        TypeError: a part of another type, such as an id that is still ``None``.
        ValueError: no parts, or an empty one: the key would belong to everybody.
    """
    if not parts:
        raise ValueError("an idempotency key needs at least one part")
    return ":".join(_encode(part) for part in parts)


def generate_idempotency_key(
    system: str,
    operation_type: str,
    identifier: str | int | UUID,
    extra: str | None = None,
) -> str:
    """Return ``SYSTEM_OPERATION_identifier[_EXTRA]``, the form that older keys are stored in.

    All but the identifier is in upper case, with ``-`` and ``.`` as ``_``. Different parts can
    give the same key; use `idempotency_key` where that matters.

    >>> generate_idempotency_key("shopify", "order", "123", "test-store")
    'SHOPIFY_ORDER_123_TEST_STORE'
    """
    parts = [_upper(system), _upper(operation_type), str(identifier)]
    if extra:
        parts.append(_upper(extra))
    return "_".join(parts)


def _encode(part: str | int | UUID) -> str:
    if not isinstance(part, str | int | UUID):
        raise TypeError(f"not a part of an idempotency key: {part!r}")
    text = quote(str(part), safe="", errors="surrogatepass")
    if not text:
        raise ValueError("a part of an idempotency key is empty")
    return text


def _upper(text: str) -> str:
    return text.upper().replace("-", "_").replace(".", "_")

"""What is secret, by the name of its key or by its look, and how it is hidden."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

MASK = "**********"

_SECRET_WORDS = frozenset(
    {
        "authorization",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pwd",
        "secret",
        "secrets",
    }
)
_SECRET_ENDS = frozenset({"token", "apikey"})
_SECRET_KEYS = frozenset({"access", "api", "encryption", "private", "secret", "signing"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

# Each pattern keeps its group and hides the rest of the match.
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)(?:(?!://)\S)+(?=@)")
_URL_TOKEN = re.compile(r"(\b(?:nats|tls)://)[^\s:/@]+(?=@)")
_SCHEME = re.compile(r"(\bbearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_BASIC = re.compile(r"(\bBasic\s+)(?=\S*[\d=+/])[A-Za-z0-9+/]{6,}=*")
_ASSIGNED = re.compile(
    r"""(\b[\w-]*(?:password|passwd|secret|token|api[_-]?key)(?:=|["']\s*[:=]\s*)["']?)[^\s"',;&)}]+""",
    re.IGNORECASE,
)
_ISSUED = re.compile(
    r"()\b(?:eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"  # a JSON web token, RFC 7519
    r"|(?:shp(?:at|ca|pa|ss)|[sr]k_(?:live|test)|whsec)_\w{8,})"  # Shopify, Stripe
)


@lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    """Say whether a key of this name holds a secret.

    Words count, not letters: `db_password`, `accessToken` and `X-Api-Key` do; `max_tokens`,
    `token_type` and `idempotency_key` do not.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    if not _SECRET_WORDS.isdisjoint(words) or words[-1] in _SECRET_ENDS:
        return True
    return words[-1] == "key" and len(words) > 1 and words[-2] in _SECRET_KEYS


def redact_text(text: str) -> str:
    """Hide what looks like a secret: a password in a URL or an assignment, a bearer token."""
    if not may_hold_secret(text):
        return text
    if "@" in text and "://" in text:
        text = _URL_PASSWORD.sub(rf"\1{MASK}", text)
        text = _URL_TOKEN.sub(rf"\1{MASK}", text)
    if "=" in text or '"' in text or "'" in text:
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
    if "earer" in text or "EARER" in text:
        text = _SCHEME.sub(rf"\1{MASK}", text)
    if "Basic" in text:
        text = _BASIC.sub(rf"\1{MASK}", text)
    if "eyJ" in text or ("_" in text and ("shp" in text or "k_" in text or "whsec" in text)):
        text = _ISSUED.sub(rf"\1{MASK}", text)
    return text


def may_hold_secret(text: str) -> bool:
    """Say whether a text holds what any of the patterns of `redact_text` cannot do without.

    `False` for a text means `False` for each part of it. Single characters are looked for first:
    finding out that one is absent takes next to nothing.
    """
    return not text.isalnum() and (
        "=" in text
        or "'" in text
        or '"' in text
        or ("@" in text and "://" in text)
        or ("B" in text and "Basic" in text)
        or ("J" in text and "eyJ" in text)
        or ("_" in text and ("shp" in text or "k_" in text or "whsec" in text))
        or "earer" in text
        or "EARER" in text
    )


def redact(name: str, value: object) -> object:
    """Hide the secrets of a value kept under `name`, in mappings and sequences too.

    `None` and booleans say whether there is a secret rather than what it is, and stay.
    """
    if value is None or isinstance(value, bool):
        return value
    if is_secret(name):
        return MASK
    match value:
        case str():
            value = redact_text(value)
        case Mapping():
            value = {key: redact(str(key), item) for key, item in value.items()}
        case list():
            value = [redact(name, item) for item in value]
        case tuple():
            value = tuple(redact(name, item) for item in value)
    return value

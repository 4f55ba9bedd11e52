from __future__ import annotations

import pytest

from shared.config import MASK, is_secret, redact, redact_text


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "DB_PASSWORD",
        "dbPassword",
        "password_hash",
        "accessToken",
        "refresh_token",
        "Authorization",
        "Set-Cookie",
        "X-Api-Key",
        "apikey",
        "APIKey",
        "client_secret",
        "secret_key",
        "private-key",
    ],
)
def test_names_that_hold_a_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["idempotency_key", "max_tokens", "token_type", "key", "author", "secretary", "", "__"]
)
def test_names_that_do_not(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def-ghi", f"Authorization: Bearer {MASK}"),
        ("bearer eyJhbGciOi.eyJzdWIi.sig", f"bearer {MASK}"),
        ("got eyJhbGciOiJIUzI1.eyJzdWIi.sig-x", f"got {MASK}"),
        ("Basic dXNlcjpwYXNz", "Basic dXNlcjpwYXNz"),
        ("Basic dXNlcjpwYXNzMQ==", f"Basic {MASK}"),
        ("postgresql://me:p@ss/w:rd@db:5432/x", f"postgresql://me:{MASK}@db:5432/x"),
        ("nats://u:a@n1,nats://u:b@n2", f"nats://u:{MASK}@n1,nats://u:{MASK}@n2"),
        ("nats://t0ken@n1", f"nats://{MASK}@n1"),
        ("redis://:pw@r", f"redis://:{MASK}@r"),
        ("dsn host=x password=hunter2 user=y", f"dsn host=x password={MASK} user=y"),
        ("/login?access_token=abc&x=1", f"/login?access_token={MASK}&x=1"),
        ('{"api_key": "abc", "a": 1}', f'{{"api_key": "{MASK}", "a": 1}}'),
        ("{'password': 'abc'}", f"{{'password': '{MASK}'}}"),
        ("shpat_0123456789abcdef", MASK),
        ("https://shop.example/a@b", "https://shop.example/a@b"),
        ("invalid token: expired", "invalid token: expired"),
        ("the bearer of news, http://x:80/y", "the bearer of news, http://x:80/y"),
    ],
)
def test_texts(text: str, shown: str) -> None:
    assert redact_text(text) == shown


def test_values_are_redacted_all_the_way_down() -> None:
    value = {"user": "me", "headers": [{"cookie": "c"}, ("Bearer abcdef123",)], "password": None}
    assert redact("", value) == {
        "user": "me",
        "headers": [{"cookie": MASK}, (f"Bearer {MASK}",)],
        "password": None,
    }

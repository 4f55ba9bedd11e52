"""Tokens: who is believed, and what is refused."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import jwt
import pytest
from pydantic import ValidationError

from shared.config import ServiceAuthSettings
from shared.errors import UnauthorizedError
from shared.http import Caller, sign_token, verify_token

OLD = "old-secret-of-thirty-two-characters"
NEW = "new-secret-of-thirty-two-characters"


def auth(**settings: Any) -> ServiceAuthSettings:
    return ServiceAuthSettings.model_validate(settings)


def signed(settings: ServiceAuthSettings, caller: str = "webhook-service", **kwargs: Any) -> str:
    token = sign_token(settings, caller=caller, audience="credit-service", **kwargs)
    assert token is not None
    return token


def verified(settings: ServiceAuthSettings, token: str) -> Caller:
    return verify_token(settings, token, audience="credit-service")


def forged(key: str = OLD, algorithm: str = "HS256", kid: object = "old", **claims: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": "webhook-service",
        "aud": "credit-service",
        "iat": now,
        "exp": now + 60,
        **claims,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else None)


def test_the_caller_and_the_tenant_are_what_was_signed() -> None:
    both = auth(secrets={"old": OLD})
    assert verified(both, signed(both)) == Caller("webhook-service")
    assert verified(both, signed(both, tenant_id="m-1")) == Caller("webhook-service", "m-1")


def test_a_token_lives_for_a_minute() -> None:
    token = signed(auth(secrets={"old": OLD}))
    claims = jwt.decode(token, OLD, algorithms=["HS256"], audience="credit-service")
    assert claims["exp"] - claims["iat"] == 60
    assert jwt.get_unverified_header(token)["kid"] == "old"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(forged(exp=int(time.time()) - 10), id="expired"),
        pytest.param(forged(iat=int(time.time()) + 100), id="not yet"),
        pytest.param(forged(exp=None), id="for ever"),
        pytest.param(forged(iss=None), id="by nobody"),
        pytest.param(forged(aud="billing-service"), id="for another service"),
        pytest.param(forged(aud=["credit-service", "billing-service"]), id="for several"),
        pytest.param(forged(aud=None), id="for anybody"),
        pytest.param(forged(key=NEW), id="foreign secret"),
        pytest.param(forged(kid="unknown"), id="unknown secret"),
        pytest.param(forged(kid=None), id="no key id"),
        pytest.param(forged(key="", algorithm="none"), id="unsigned"),
        pytest.param(forged()[:-4] + "AAAA", id="tampered"),
        pytest.param(forged(key=OLD * 2, algorithm="HS512"), id="another algorithm"),
        pytest.param(forged(tenant_id=7), id="a tenant that is no text"),
        pytest.param("", id="empty"),
        pytest.param("a.b.c", id="nonsense"),
        pytest.param("é" * 10, id="not ASCII"),
        pytest.param("W1tb" * 9999, id="huge"),
    ],
)
def test_any_other_token_is_refused(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UnauthorizedError) as refused:
        verified(auth(secrets={"old": OLD}), token)
    assert refused.value.message == "A valid service token is required"
    assert "service token refused" in caplog.text
    assert OLD not in caplog.text
    assert not token or token not in caplog.text


def test_without_a_secret_nothing_is_signed_and_nobody_believed() -> None:
    none = auth()
    assert sign_token(none, caller="webhook-service", audience="credit-service") is None
    with pytest.raises(UnauthorizedError):
        verified(none, forged())


def test_a_secret_is_changed_without_a_gap() -> None:
    first = auth(secrets={"old": OLD})
    added = auth(secrets={"old": OLD, "new": NEW}, sign_with="old")
    named = auth(secrets={"old": OLD, "new": NEW}, sign_with="new")
    removed = auth(secrets={"new": NEW})
    steps = [first, added, named, removed]
    for before, after in pairwise(steps):
        assert verified(after, signed(before)).service == "webhook-service"
        assert verified(before, signed(after)).service == "webhook-service"
    with pytest.raises(UnauthorizedError):
        verified(removed, signed(first))


def test_a_secret_of_one_service_signs_for_no_other() -> None:
    own = auth(secrets={"webhook-service/1": OLD})
    assert verified(own, signed(own)).service == "webhook-service"
    with pytest.raises(UnauthorizedError):
        verified(own, signed(own, caller="billing-service"))


def test_secrets_are_never_shown() -> None:
    settings = auth(secrets={"old": OLD, "new": NEW}, sign_with="new")
    for text in (repr(settings), str(settings), str(settings.model_dump()), repr(vars(settings))):
        assert OLD not in text
        assert NEW not in text


@pytest.mark.parametrize(
    "settings",
    [
        {"secrets": {"old": "short"}},
        {"secrets": {"old": OLD, "new": NEW}},
        {"secrets": {"old": OLD}, "sign_with": "new"},
        {"sign_with": "new"},
    ],
)
def test_settings_that_cannot_work_are_told(settings: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        auth(**settings)
    assert "short" not in str(refused.value).replace("too_short", "").replace("at least", "")
    assert OLD not in str(refused.value)

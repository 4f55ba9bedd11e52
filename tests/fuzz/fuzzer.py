"""Schemathesis against a service that runs, over a socket."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemathesis import BaseSchema, Case, CheckContext, HookContext, Response

__all__ = ["Findings", "fuzz"]


_preferred: Counter[str] = Counter()
"""How often each operation was called in this run."""


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Ask for a problem document every second time."""
    del context, kwargs
    operation = f"{case.method} {case.path}"
    _preferred[operation] += 1
    odd = _preferred[operation] % 2
    case.headers["Accept"] = "application/problem+json, */*;q=0.1" if odd else "*/*"


@schemathesis.check
def every_error_has_its_form(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Errors are envelopes, or problem documents for whom prefers them; with the ids of the edge.

    The answers of the health routes are a form of their own.
    """
    del ctx
    (request_id,) = response.headers["x-request-id"]
    assert response.headers["x-trace-id"][0] in response.headers["traceparent"][0]
    if response.status_code < 400 or "/health/" in case.path:
        return
    (media_type,) = response.headers["content-type"]
    answer = json.loads(response.content)
    meta, error = answer["meta"], answer
    if media_type == "application/json":
        assert set(answer) == {"error", "meta"}, answer
        error = answer["error"]
        assert set(error) <= {"code", "message", "details"}, answer
        assert isinstance(error["message"], str), answer
    else:
        assert media_type == "application/problem+json", media_type
        assert answer["status"] == response.status_code, answer
        assert {"type", "title", "detail", "instance"} <= set(answer), answer
    assert isinstance(error["code"], str), answer
    assert meta["request_id"] == request_id, answer
    assert meta["correlation_id"] == response.headers["x-correlation-id"][0], answer


@dataclass
class Findings:
    """What a run found."""

    failures: list[str] = field(default_factory=list)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each operation answered with each status."""

    @property
    def operations(self) -> set[str]:
        return {operation for operation, _ in self.answers}

    @property
    def requests(self) -> int:
        return sum(self.answers.values())


def fuzz(url: str, *, examples: int, seed: int = 1, without: Sequence[str] = ()) -> Findings:
    """Send good and bad requests to all operations of a service; every second one prefers problems.

    Args:
        url: of its OpenAPI document.
        examples: of each operation and kind of data.
        seed: the same gives the same requests.
        without: tags of operations to leave out.
    """
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "continue-on-failure": True,
            "request-timeout": 20,
            "generation": {
                "max-examples": examples,
                "deterministic": True,
                "database": "none",
                "no-shrink": True,
            },
            "phases": {"stateful": {"enabled": False}},
        }
    )
    findings = Findings()
    schema: BaseSchema = schemathesis.openapi.from_url(url, config=config)
    if without:
        schema = schema.exclude(tag=list(without))
    _preferred.clear()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _gather(event, findings)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            findings.failures.append(repr(getattr(event, "info", event)))
    return findings


# Good by its schema, and refused all the same: the key came with another request before, and a
# rule over several fields (one of two, and not both) is none that a schema tells.
_UNTOLD = (
    b'"IDEMPOTENCY_KEY_REUSED"',
    b"give where or sequences",
    b"give body or body_base64, not both",
)


def _refused_untold(event: events.ScenarioFinished, case_id: str) -> bool:
    response = event.recorder.interactions[case_id].response
    return response is not None and any(words in response.content for words in _UNTOLD)


def _gather(event: events.ScenarioFinished, findings: Findings) -> None:
    for case_id, exchange in event.recorder.interactions.items():
        case: Any = event.recorder.cases[case_id].value
        operation = f"{case.method} {case.path}"
        if exchange.response is not None:
            findings.answers[operation, exchange.response.status_code] += 1
    for case_id, checks in event.recorder.checks.items():
        case = event.recorder.cases[case_id].value
        findings.failures += [
            f"{case.as_curl_command()}: {check.name}: {check.failure_info.failure}"
            for check in checks
            if check.failure_info is not None
            and not (check.name == "positive_data_acceptance" and _refused_untold(event, case_id))
        ]

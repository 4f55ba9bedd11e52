"""Dead letters as a terminal shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.cli.dead_letter_view import print_groups
from shared.messaging import DeadLetterGroup

if TYPE_CHECKING:
    import pytest

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_brackets_in_an_error_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    group = DeadLetterGroup(
        durable="till-paid",
        service="till-service",
        fingerprint="ab12",
        count=2,
        reason="handler",
        error_type="builtins.KeyError",
        error_message="no [bold] in orders[id]",
        first_at=AT,
        last_at=AT,
        versions=("1.0",),
        example=7,
    )
    print_groups([group])
    assert "no [bold] in orders[id]" in capsys.readouterr().out

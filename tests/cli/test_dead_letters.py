"""``glam dlq``, as typed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shared.cli.app import app
from shared.config import NatsSettings
from shared.events import Envelope, StreamDefinition
from shared.messaging import Bus, DeadLetters, Delivery

SUBJECT = "evt.tests.happened"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def dlq(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, ["dlq", *arguments], input=answer)


def told(*arguments: str) -> Any:
    result = dlq(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return document(result)


def document(result: Result) -> Any:
    """Return what was printed, without the log of this process."""
    return json.loads(result.stdout[result.stdout.index("{\n") :])


def numbers() -> list[int]:
    return [letter["sequence"] for letter in told("list")["letters"]]


@pytest.fixture(autouse=True)
def letters(nats_settings: NatsSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six letters: of `even` by a ValueError, of `odd` by a KeyError."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("GLAM_NATS_SERVERS", nats_settings.servers[0])

    async def fill() -> None:
        async with Bus(nats_settings, name="test") as bus:
            await bus.ensure_stream(StreamDefinition("TESTS", ("evt.tests.>",)))
            for number in range(1, 7):
                document = {
                    "event_id": f"e{number}",
                    "subject": SUBJECT,
                    "timestamp": "2026-01-02T00:00:00+00:00",
                    "payload": {"amount": number},
                }
                await DeadLetters(bus).store(
                    Delivery(
                        subject=SUBJECT,
                        body=Envelope.from_dict(document).encode(),
                        headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
                        stream="TESTS",
                        sequence=number,
                        attempt=1,
                        published_at=datetime.now(UTC),
                    ),
                    durable="odd" if number % 2 else "even",
                    service="tests",
                    version="1.2.3",
                    reason="rejected",
                    error=KeyError("k") if number % 2 else ValueError("v"),
                )

    asyncio.run(fill())


def test_a_list_that_goes_on_says_so() -> None:
    shown = dlq("list", "--limit", "2")
    assert "there are more: --after 2" in shown.output
    assert told("list", "--limit", "4", "--after", "2")["next_after"] is None
    page = told("list", "--durable", "odd", "--since", "1h", "--limit", "2")
    assert [letter["sequence"] for letter in page["letters"]] == [1, 3]
    assert page["next_after"] == 3
    assert told("list", "--error", "valueerror", "--until", "2026-01-01")["letters"] == []
    assert dlq("list", "--since", "yesterday").exit_code == 2


def test_groups_show_one_line_for_each_cause() -> None:
    groups = told("groups")["groups"]
    assert [(g["durable"], g["count"], g["versions"]) for g in groups] == [
        ("even", 3, ["1.2.3"]),
        ("odd", 3, ["1.2.3"]),
    ]
    assert "ValueError" in dlq("groups").output


def test_show_tells_why_by_whom_and_how_to_see_the_trace() -> None:
    shown = dlq("show", "2").output
    assert "even of tests 1.2.3" in shown
    assert f"glam trace {TRACE}" in shown
    assert "builtins.ValueError: v" in shown
    assert '"amount": 2' in shown
    assert json.loads(told("show", "2")["body"])["payload"] == {"amount": 2}


def test_many_are_replayed_only_when_that_is_meant() -> None:
    assert dlq("replay").exit_code == 2
    assert dlq("replay", "1", "--all").exit_code == 2
    shown = dlq("replay", "--durable", "odd", "--dry-run")
    assert "3 would be replayed; nothing was done" in shown.output
    named = dlq("replay", "--match-reason", "REJECT", "--reason", "mended", "--dry-run")
    assert "6 would be replayed" in named.output
    refused = dlq("replay", "--durable", "odd", answer="n\n")
    assert refused.exit_code == 1
    assert "replay 3 dead letters?" in refused.output
    assert numbers() == [1, 2, 3, 4, 5, 6]
    assert dlq("replay", "--durable", "odd", answer="y\n").exit_code == 0
    assert numbers() == [2, 4, 6]
    partly = dlq("replay", "2", "99", "--yes", "--json")
    assert partly.exit_code == 1
    assert document(partly)["replayed"] == [2]
    assert "there is no dead letter 99" in partly.stderr


def test_an_edit_is_kept_in_the_audit(tmp_path: Path) -> None:
    assert dlq("replay", "1", "--set", "payload.amount=7", "--reason", "typo").exit_code == 0
    (record,) = told("audit", "--letter", "1")["records"]
    assert record["changes"] == [{"path": "payload.amount", "before": 1, "after": 7}]
    assert (record["action"], record["reason"]) == ("replayed", "typo")
    assert "@" in record["actor"]
    file = tmp_path / "body.json"
    file.write_text('{"event_id": "other"}')
    missing = subprocess.run(
        [sys.executable, "-m", "shared.cli", "dlq", "replay", "2", "--edit", str(file)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 1
    assert "envelope" in missing.stderr
    assert dlq("replay", "--all", "--edit", str(file)).exit_code == 2
    assert numbers() == [2, 3, 4, 5, 6]


def test_a_discard_says_why_and_can_be_undone() -> None:
    assert (
        "3 would be discarded"
        in dlq("discard", "--durable", "even", "--reason", "old", "--dry-run").output
    )
    assert dlq("discard", "--durable", "even", "--reason", "old", "--yes").exit_code == 0
    assert numbers() == [1, 3, 5]
    shown = dlq("audit")
    assert shown.output.count("discarded") == 3
    assert "restored as 7" in dlq("restore", "1").output
    assert numbers() == [1, 3, 5, 7]


def test_ctrl_c_stops_between_two_and_tells_how_far() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "shared.cli", "dlq", "replay", "--all", "--yes", "--rate", "0.2"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "replayed 1\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "replayed 1 of 6, stopped\n"
    assert process.returncode == 130
    assert numbers() == [2, 3, 4, 5, 6]

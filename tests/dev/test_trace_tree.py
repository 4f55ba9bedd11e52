"""The trace of `shared.dev.trace_tree`, from log lines to a drawn tree."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from shared.dev.trace_tree import read_spans, render_trace


def line(span_id: str, parent: str | None, *, at: int, **fields: Any) -> str:
    return json.dumps(
        {
            "timestamp": "2026-11-23T08:00:00+00:00",
            "service": "credit-service",
            "message": "span",
            "span": f"step {span_id}",
            "kind": "internal",
            "trace_id": "t",
            "span_id": span_id,
            "parent_span_id": parent,
            "started": f"2026-11-23T08:00:00.{at:03d}000+00:00",
            "duration_ms": 2.5,
            **fields,
        }
    )


def drawn(path: Path) -> list[str]:
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(render_trace(read_spans([path])))
    return [row.rstrip() for row in capture.get().splitlines()[1:]]


def test_children_stand_under_their_parent_in_the_order_they_began(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(
        "\n".join(
            [
                line("c", "a", at=20),
                line("d", "b", at=15, error="ValueError: no"),
                line("b", "a", at=10),
                line("a", "the caller's", at=0),
                line("x", "of a process that died", at=30),
            ]
        )
    )
    rows = drawn(log)
    assert [row[: row.index("step") + len("step a")] for row in rows] == [
        "step a",
        "├─ step b",
        "│  └─ step d",
        "└─ step c",
        "step x",
    ]
    assert "ValueError: no" in rows[2]
    assert rows[3].endswith("20.0 ms  2.5 ms")


def test_what_is_no_span_is_passed_over_and_no_span_is_read_twice(tmp_path: Path) -> None:
    log, again = tmp_path / "a.jsonl", tmp_path / "a.jsonl.1"
    whole = line("a", None, at=0)
    log.write_text(
        "\n".join(
            [
                '{"message": "of a span, with its \\"span_id\\"", "span_id": "a"}',
                "[1, 2]",
                whole,
                line("b", "a", at=1, started="yesterday"),
                line("c", "a", at=2)[:90],
            ]
        )
    )
    again.write_text(whole + "\n")
    assert [span.span_id for span in read_spans([log, again])] == ["a"]


def test_no_spans_are_an_empty_table() -> None:
    assert render_trace([]).row_count == 0

"""Comments that allow a finding."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from shared.database.migrations.lint.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.database.migrations.recording import Recording


_ALLOW = re.compile(r"#\s*lint-ok\b\s*(?P<rules>[\w, -]*?)\s*(?::\s*(?P<reason>.*))?$")
_BLOCKS = (ast.FunctionDef, ast.With, ast.For, ast.If, ast.While, ast.Try, ast.ClassDef)


def not_allowed(findings: list[Finding], recording: Recording) -> Iterator[Finding]:
    """Leave out what a comment allows; add the comments that do so for nothing."""
    source = Path(recording.path).read_text(encoding="utf-8")
    spans = _spans(source)
    comments: dict[int, tuple[set[str], str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (match := _ALLOW.match(token.string)):
            rules = {rule for rule in re.split(r"[\s,]+", match["rules"]) if rule}
            comments[token.start[0]] = (rules, (match["reason"] or "").strip())
    used: dict[int, set[str]] = defaultdict(set)
    for finding in findings:
        lines = _lines_of(finding.line, spans, source)
        at = [line for line in lines if line in comments and finding.rule in comments[line][0]]
        if not at:
            yield finding
        for line in at:
            used[line].add(finding.rule)
    for line, (rules, reason) in comments.items():
        wrong = (
            f"it gives no reason for {', '.join(sorted(rules))}"
            if not reason
            else "it names no rule"
            if not rules
            else f"there is no {', '.join(sorted(rules - used[line]))} to allow here"
            if rules - used[line]
            else ""
        )
        if wrong:
            yield Finding(
                "suppression",
                recording.path,
                line,
                recording.revision,
                wrong,
                "# lint-ok drop-column: nothing reads it since 1.4",
            )


def _spans(source: str) -> list[tuple[int, int]]:
    """First and last line of every statement of a function, the longer ones first."""
    tree = ast.parse(source)
    found = [
        (node.lineno, node.lineno if isinstance(node, _BLOCKS) else node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
    ]
    return sorted(found, key=lambda span: span[0] - span[1])


def _lines_of(line: int, spans: list[tuple[int, int]], source: str) -> set[int]:
    """The lines of the innermost statement around ``line``, and of the comments right above it."""
    first, last = line, line
    for start, end in spans:
        if start <= line <= end:
            first, last = start, end
    lines = source.splitlines()
    above = first - 1
    while above >= 1 and lines[above - 1].lstrip().startswith("#"):
        above -= 1
    return set(range(above + 1, last + 1))

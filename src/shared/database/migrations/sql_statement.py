"""SQL taken apart far enough to tell what a statement does: words, names, lists; no grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<dollar>\$(?P<tag>[A-Za-z_]?\w*)\$.*?\$(?P=tag)\$)
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<word>[A-Za-z_][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<cast>::)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its text as written, and its words in lower case, without comments.

    A quoted name stands without its quotes where it needs none: ``"orders"`` is ``orders``.
    """

    text: str
    tokens: tuple[str, ...]

    @property
    def reader(self) -> Reader:
        """A reader at the first word."""
        return Reader(self.tokens)

    @property
    def loses_rows(self) -> bool:
        """Whether it drops a table or column, or deletes rows."""
        start = self.tokens[:2]
        if start in {("drop", "table"), ("drop", "schema"), ("delete", "from")}:
            return True
        if self.tokens[:1] == ("truncate",):
            return True
        return start == ("alter", "table") and any(
            word == "drop" and following not in {"constraint", "default", "not", "identity"}
            for word, following in pairwise(self.tokens)
        )


def split_statements(sql: str) -> list[Statement]:
    """Split at the semicolons that are outside of strings, names, comments and bodies."""
    found: list[Statement] = []
    tokens: list[str] = []
    start = 0
    for match in _TOKEN.finditer(sql):
        kind, text = match.lastgroup, match[0]
        if match["skip"] is not None:
            continue
        if text == ";":
            if tokens:
                found.append(Statement(sql[start : match.start()].strip(), tuple(tokens)))
            tokens, start = [], match.end()
        elif match["quoted"] is not None:
            name = text[1:-1]
            tokens.append(name if _PLAIN.fullmatch(name) else text)
        else:
            tokens.append(text.lower() if kind == "word" else text)
    if tokens:
        found.append(Statement(sql[start:].strip(), tuple(tokens)))
    return found


class Reader:
    """Goes through the words of a statement, or of a part of one."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self.tokens = tokens
        self.position = 0

    @property
    def rest(self) -> tuple[str, ...]:
        """What has not been read."""
        return self.tokens[self.position :]

    def take(self, words: str) -> bool:
        """Read these words if they come next; say whether they did."""
        wanted = tuple(words.split())
        if self.rest[: len(wanted)] != wanted:
            return False
        self.position += len(wanted)
        return True

    def take_any(self, *choices: str) -> str | None:
        """Read the first of ``choices`` that comes next."""
        return next((choice for choice in choices if self.take(choice)), None)

    def next(self) -> str:
        """Read one word; empty at the end."""
        if not self.rest:
            return ""
        self.position += 1
        return self.tokens[self.position - 1]

    def name(self) -> str:
        """Read a name and return its last part: ``orders`` of ``credit.orders``."""
        name = self.next()
        while self.take("."):
            name = self.next()
        return name

    def names(self) -> list[str]:
        """Read names with commas between them."""
        found = [self.name()]
        while self.take(","):
            found.append(self.name())
        return found

    def until(self, *stops: str) -> tuple[str, ...]:
        """Read up to one of ``stops`` that stands outside of brackets, or to the end."""
        depth, start = 0, self.position
        while self.position < len(self.tokens):
            word = self.tokens[self.position]
            if depth == 0 and word in stops and self.position > start:
                break
            depth += (word in {"(", "["}) - (word in {")", "]"})
            if depth < 0:
                break
            self.position += 1
        return self.tokens[start : self.position]

    def parts(self) -> list[Reader]:
        """Read to the end, or to the bracket that closes; what stands between commas, each."""
        found = []
        while self.rest and self.rest[0] != ")":
            found.append(Reader(self.until(",")))
            if not self.take(","):
                break
        return found

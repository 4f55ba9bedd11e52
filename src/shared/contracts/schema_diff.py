"""Whether whatever one JSON Schema lets be written, another lets be read.

Sound rather than complete: no break is found only when there is none, and what cannot be compared
counts as a break. A form is taken as its writer means it: unless it says otherwise
(`additionalProperties`), only the fields that it declares are written. JSON Schema 2020-12, in the
words that pydantic uses; what a validator knows and its schema does not tell is not seen.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any] | bool

# What a schema tells people, and no validator obeys.
TOLD = frozenset(
    {
        *("title", "description", "examples", "default", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$defs", "$id", "$schema"),
    }
)

# Formats that another format takes in (RFC 9562: each version of a UUID is a UUID).
_WITHIN = {f"uuid{version}": "uuid" for version in range(1, 9)}

STEPS = _ITEM, _VALUE, _KEY = ("[]", "{}", "{key}")
_UNLIKE = "unlike"  # marks what was joined from words that cannot be joined


@dataclass(frozen=True, slots=True)
class Break:
    """Something that may be written and would not be read.

    `path` leads to it: names of fields, ``[]`` for the items of a list, ``{}`` for the values and
    ``{key}`` for the keys of a mapping. `lacking` says that a field is required and may be missing.
    """

    path: tuple[str, ...]
    what: str
    lacking: bool = False

    @property
    def place(self) -> str:
        """The path as it is read: ``lines[].price``."""
        text = ""
        for step in self.path:
            text += step if step in STEPS else f".{step}" if text else step
        return text or "payload"

    def __str__(self) -> str:
        return f"{self.place} {self.what}"


def find_breaks(*, written: Node, read: Node) -> tuple[Break, ...]:
    """Return why documents that `written` allows may be refused by `read`; empty if none is.

    Raises:
        ValueError: a reference leads nowhere.

    """
    return tuple(dict.fromkeys(_Comparison(written, read).breaks(written, read)))


class _Comparison:
    """Compares the parts of two schemas, each with its own definitions."""

    def __init__(self, written: Node, read: Node) -> None:
        self._written, self._read = written, read
        self._found: dict[tuple[str, str], tuple[Break, ...]] = {}
        self._underway: set[tuple[str, str]] = set()
        self._assumed = 0

    def breaks(self, written: Node, read: Node) -> tuple[Break, ...]:
        """Return the breaks between two parts, their paths beginning here.

        A part that is met again inside of itself is assumed to fit: if it does not, that is found
        where it was met first. What was found on such an assumption is not remembered.
        """
        key = (json.dumps(written, sort_keys=True), json.dumps(read, sort_keys=True))
        if key in self._found:
            return self._found[key]
        if key in self._underway:
            self._assumed += 1
            return ()
        self._underway.add(key)
        before = self._assumed
        found = tuple(self._compare(written, read))
        self._underway.remove(key)
        if found or self._assumed == before:
            self._found[key] = found
        return found

    def _compare(self, written: Node, read: Node) -> list[Break]:
        readable = _choices(read, self._read)
        found: list[Break] = []
        for choice in _choices(written, self._written):
            found += self._nearest(choice, readable)
        return found

    def _nearest(self, written: dict[str, Any], readable: list[dict[str, Any]]) -> list[Break]:
        """Return the breaks to the choice that comes nearest; none if one reads it all."""
        nearest: list[Break] | None = None
        for choice in readable:
            found = self._between(written, choice)
            if not found:
                return []
            alike = _kind(written) == _kind(choice) and "const" not in choice
            if alike and (nearest is None or len(found) < len(nearest)):
                nearest = found
        if nearest is not None:
            return nearest
        if not readable:
            return [Break((), "is written, and nothing is read here")]
        kinds = " or ".join(dict.fromkeys(_kind(choice) for choice in readable))
        return [Break((), f"may be {_kind(written)}, and what is read is {kinds}")]

    def _between(self, written: dict[str, Any], read: dict[str, Any]) -> list[Break]:
        if not read:
            return []
        if _UNLIKE in read:
            return [Break((), "is read by rules that cannot be compared")]
        if "const" in written:
            value = written["const"]
            return [] if _takes(read, value) else [Break((), f"may be {_text(value)}")]
        if "const" in read:
            return [Break((), f"may be other than {_text(read['const'])}")]
        kind = read.get("type")
        if kind is not None and written.get("type") not in {kind, _narrower(kind)}:
            return [Break((), f"may be {_kind(written)}, and what is read is {_kind(read)}")]
        found = _bounds(written, read) + _texts(written, read) + _unknown(written, read)
        found += self._items(written, read)
        return found + self._fields(written, read)

    # -- lists -------------------------------------------------------------------------------

    def _items(self, written: dict[str, Any], read: dict[str, Any]) -> list[Break]:
        if not {"items", "prefixItems"} & read.keys():
            return []
        ours, theirs = written.get("prefixItems", []), read.get("prefixItems", [])
        longest = written.get("maxItems", math.inf)
        rest, others = written.get("items", True), read.get("items", True)
        if rest is False:
            longest = min(longest, len(ours))
        found: list[Break] = []
        places = max(len(ours), len(theirs))
        for place in range(places):
            if place < longest:
                at = ours[place] if place < len(ours) else rest
                to = theirs[place] if place < len(theirs) else others
                found += _below(_ITEM, self.breaks(at, to))
        if longest > places:
            found += _below(_ITEM, self.breaks(rest, others))
        return found

    # -- objects -----------------------------------------------------------------------------

    def _fields(self, written: dict[str, Any], read: dict[str, Any]) -> list[Break]:
        ours, theirs = written.get("properties", {}), read.get("properties", {})
        required = set(written.get("required", ()))
        found = [
            Break((name,), "is required, and may be missing", lacking=True)
            for name in read.get("required", ())
            if name not in required
        ]
        more, others = _more(written), read.get("additionalProperties", True)
        patterns = read.get("patternProperties", {})
        for name, form in ours.items():
            if name in theirs:
                found += _below(name, self.breaks(form, theirs[name]))
            elif not patterns:
                found += _unforeseen(name, self.breaks(form, others), others)
        # A mapping's keys may be any: those that the reader names too.
        if isinstance(more, Mapping) or (more and "properties" not in written):
            for name, form in theirs.items():
                if name not in ours:
                    found += _below(name, self.breaks(more, form))
        if more is not False and not patterns:
            found += _below(_VALUE, self.breaks(more, others))
        found += self._patterns(written, read)
        return found + self._keys(written, read)

    def _patterns(self, written: dict[str, Any], read: dict[str, Any]) -> list[Break]:
        """Compare fields given by patterns; two patterns are alike or cannot be compared."""
        ours, theirs = written.get("patternProperties", {}), read.get("patternProperties", {})
        found: list[Break] = []
        for pattern, form in ours.items():
            if pattern in theirs:
                found += _below(_VALUE, self.breaks(form, theirs[pattern]))
            else:
                found += _below(_VALUE, self.breaks(form, read.get("additionalProperties", True)))
                if theirs or read.get("properties"):
                    found.append(Break((_KEY,), f"may match {pattern}, which cannot be compared"))
        if theirs and (ours.keys() != theirs.keys() or written.get("properties") or _more(written)):
            found.append(Break((_KEY,), "is read by other patterns, which cannot be compared"))
        return found

    def _keys(self, written: dict[str, Any], read: dict[str, Any]) -> list[Break]:
        names = read.get("propertyNames")
        if names is None:
            return []
        found: list[Break] = []
        for name in written.get("properties", {}):
            found += _below(_KEY, self.breaks({"const": name}, names))
        patterns = written.get("patternProperties", {})
        for pattern in patterns:
            found += _below(_KEY, self.breaks({"type": "string", "pattern": pattern}, names))
        if _more(written) is not False:
            keys = written.get("propertyNames", {})
            found += _below(_KEY, self.breaks({"allOf": [{"type": "string"}, keys]}, names))
        return found


# -- a schema as a list of choices ---------------------------------------------------------------


def _choices(node: Node, root: Node, seen: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return a schema as choices without references, unions and lists of types."""
    if isinstance(node, bool):
        return [{}] if node else []
    words = {word: value for word, value in node.items() if word not in TOLD}
    chosen: list[dict[str, Any]] = [{}]
    reference = words.pop("$ref", None)
    if reference is not None and reference not in seen:
        chosen = _choices(_resolve(reference, root), root, (*seen, reference))
    for part in words.pop("allOf", ()):
        chosen = _both(chosen, _choices(part, root, seen))
    # A reader with a discriminator looks at nothing else: there it must be.
    discriminator = words.pop("discriminator", None)
    if isinstance(discriminator, Mapping) and "propertyName" in discriminator:
        chosen = _both(chosen, [{"required": [discriminator["propertyName"]]}])
    for union in ("anyOf", "oneOf"):
        if union in words:
            parts = [choice for part in words.pop(union) for choice in _choices(part, root, seen)]
            chosen = _both(chosen, parts)
    if "const" in words:
        chosen = _both(chosen, [{"const": words.pop("const")}])
    if "enum" in words:
        chosen = _both(chosen, [{"const": value} for value in words.pop("enum")])
    kinds = words.pop("type", None)
    if kinds is not None:
        named = kinds if isinstance(kinds, list) else [kinds]
        chosen = _both(chosen, [{"type": kind} for kind in named])
    return _both(chosen, [words]) if words else chosen


def _resolve(reference: str, root: Node) -> Node:
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")  # noqa: PLW2901 - RFC 6901, section 4
        if not isinstance(found, Mapping) or step not in found:
            raise ValueError(f"the schema has no {reference}")
        found = found[step]
    if not reference.startswith("#") or not isinstance(found, Mapping | bool):
        raise ValueError(f"{reference} is not within the schema")
    return found


def _both(ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    joined = [_joined(one, other) for one in ones for other in others]
    return [choice for choice in joined if choice is not None]


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """Return the words of both; None if no document satisfies both."""
    both = {**one, **other}
    for word in one.keys() & other.keys():
        ours, theirs = one[word], other[word]
        if ours == theirs and type(ours) is type(theirs):
            continue
        if word == "const" or (word == "type" and {ours, theirs} != {"integer", "number"}):
            return None
        joined = _word(word, ours, theirs)
        both[_UNLIKE if joined is None else word] = True if joined is None else joined
    if "const" in both and "type" in both:
        if not _is(both["type"], both["const"]):
            return None
        del both["type"]
    return both


def _word(word: str, ours: Any, theirs: Any) -> Any:
    """Return one word for two that differ; None if they cannot be joined."""
    if word == "type":
        return "integer"
    if word == "required":
        return sorted({*ours, *theirs})
    if word == "properties":
        return {
            name: {"allOf": [ours[name], theirs[name]]}
            if name in ours and name in theirs
            else ours.get(name, theirs.get(name))
            for name in sorted({*ours, *theirs})
        }
    if word in _LEAST or word in _MOST:
        return max(ours, theirs) if word in _LEAST else min(ours, theirs)
    return None


# -- words of single values ----------------------------------------------------------------------

_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_NUMERIC = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
_SIZES = {
    "minLength": "may be shorter than {}",
    "maxLength": "may be longer than {}",
    "minItems": "may have fewer items than {}",
    "maxItems": "may have more items than {}",
    "minProperties": "may have fewer entries than {}",
    "maxProperties": "may have more entries than {}",
}
_COMPARED = frozenset(
    {
        *_LEAST,
        *_MOST,
        *("type", "const", "multipleOf", "pattern", "format", "uniqueItems"),
        *("items", "prefixItems", "properties", "required", "additionalProperties"),
        *("patternProperties", "propertyNames"),
    }
)


def _bounds(written: dict[str, Any], read: dict[str, Any]) -> list[Break]:
    found: list[Break] = []
    low, high = _low(read), _high(read)
    if low > _low(written):
        found.append(Break((), f"may be {'' if low[1] else 'below '}{low[0]}"))
    if high < _high(written):
        found.append(Break((), f"may be {'above ' if high[1] else ''}{high[0]}"))
    step = read.get("multipleOf")
    if step is not None:
        ours = written.get("multipleOf", 1 if written.get("type") == "integer" else None)
        if ours is None or ours % step:
            found.append(Break((), f"may be no multiple of {step}"))
    for word, what in _SIZES.items():
        bound = read.get(word)
        if bound is not None and not _sized(written, word, bound):
            found.append(Break((), what.format(bound)))
    if read.get("uniqueItems") and not written.get("uniqueItems"):
        found.append(Break((), "may hold an item twice"))
    return found


def _low(words: dict[str, Any]) -> tuple[float, bool]:
    """Return the least number, and whether it is excluded itself; the greater, the stricter."""
    bounds = [(-math.inf, False)]
    bounds += [(words["minimum"], False)] if "minimum" in words else []
    bounds += [(words["exclusiveMinimum"], True)] if "exclusiveMinimum" in words else []
    return max(bounds)


def _high(words: dict[str, Any]) -> tuple[float, bool]:
    """Return the greatest number, and whether it is included; the less, the stricter."""
    bounds = [(math.inf, True)]
    bounds += [(words["maximum"], True)] if "maximum" in words else []
    bounds += [(words["exclusiveMaximum"], False)] if "exclusiveMaximum" in words else []
    return min(bounds)


def _sized(written: dict[str, Any], word: str, bound: int) -> bool:
    """Tell whether what is written keeps to a bound of its size."""
    if word in _MOST:
        return bool(min(written.get(word, math.inf), _declared(written, word)) <= bound)
    return bool(max(written.get(word, 0), _declared(written, word)) >= bound)


def _declared(written: dict[str, Any], word: str) -> float:
    """Return how many entries an object has by its fields alone."""
    if word == "minProperties":
        return len(written.get("required", ()))
    if word == "maxProperties" and _more(written) is False:
        return math.inf if written.get("patternProperties") else len(written.get("properties", ()))
    return math.inf if word in _MOST else 0


def _texts(written: dict[str, Any], read: dict[str, Any]) -> list[Break]:
    found: list[Break] = []
    if "pattern" in read and written.get("pattern") != read["pattern"]:
        found.append(Break((), f"may not match {read['pattern']}"))
    form = read.get("format")
    ours = written.get("format")
    if form is not None and form not in {ours, _WITHIN.get(str(ours))}:
        found.append(Break((), f"may not be of format {form}"))
    return found


def _unknown(written: dict[str, Any], read: dict[str, Any]) -> list[Break]:
    """Return a break for each word that is not known here, unless both have it alike."""
    return [
        Break((), f"is read by {word}, which cannot be compared")
        for word, value in read.items()
        if word not in _COMPARED
        and not (written.get(word) == value and "$ref" not in json.dumps(value))
    ]


def _takes(read: dict[str, Any], value: object) -> bool:
    """Tell whether a choice surely takes in a value."""
    if "const" in read:
        return json.dumps(read["const"], sort_keys=True) == json.dumps(value, sort_keys=True)
    if isinstance(value, dict | list):
        return not read.keys() - {"type"} and _is(read.get("type", _kind_of(value)), value)
    for word, bound in read.items():
        if word == "type":
            good = _is(bound, value)
        elif word == "pattern" and isinstance(value, str):
            good = _matches(bound, value)
        elif word in {"minLength", "maxLength"} and isinstance(value, str):
            good = len(value) >= bound if word == "minLength" else len(value) <= bound
        elif isinstance(value, int | float) and not isinstance(value, bool):
            exactly = {"minimum": value, "maximum": value, "multipleOf": value}
            good = word in _NUMERIC and not _bounds(exactly, {word: bound})
        else:
            good = False
        if not good:
            return False
    return True


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return False


def _is(kind: str, value: object) -> bool:
    return _kind_of(value) in {kind, _narrower(kind)}


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _narrower(kind: str) -> str:
    return "integer" if kind == "number" else kind


def _kind(choice: dict[str, Any]) -> str:
    if "const" in choice:
        return _text(choice["const"])
    return str(choice.get("type", "object" if "properties" in choice else "anything"))


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# -- words of objects ----------------------------------------------------------------------------


def _more(written: dict[str, Any]) -> Node:
    """Return the form of what is written beside the declared fields; False is: nothing."""
    if "additionalProperties" in written:
        more: Node = written["additionalProperties"]
        return more
    return not {"properties", "patternProperties"} & written.keys()


def _unforeseen(name: str, found: tuple[Break, ...], others: Node) -> list[Break]:
    if others is False:
        return [Break((name,), "is written, and unknown fields are refused")]
    return _below(name, found)


def _below(step: str, found: tuple[Break, ...]) -> list[Break]:
    return [Break((step, *each.path), each.what, each.lacking) for each in found]

"""The keys a settings class knows, and what a text under a key means."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import pydantic_core
from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr

from shared.config.variables import SHORT

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from shared.config.entries import Path

SECTIONS = frozenset(
    {
        "api",
        "cache",
        "database",
        "infrastructure",
        "logging",
        "monitoring",
        "nats",
        "rate_limiting",
        "service",
    }
)
"""Sections that may stand in any file; a settings class that has no such field ignores them."""

_MOVED: Mapping[Path, Path] = {
    ("infrastructure", "nats"): ("nats",),
    ("database", "pool_recycle"): ("database", "pool_recycle_seconds"),
}
"""Older places of keys."""


class Keys:
    """The keys of one settings class."""

    def __init__(self, settings: type[BaseModel]) -> None:
        self._settings = settings

    def canonical(self, path: Path) -> Path:
        """Give a key its one spelling: older places and aliases become the field's own name."""
        if path[0] not in self._settings.model_fields or path in _MOVED:
            for old, new in _MOVED.items():
                if path[: len(old)] == old:
                    path = (*new, *path[len(old) :])
        steps: list[str] = []
        model: type[BaseModel] | None = self._settings
        for step in path:
            name, field = _find(model, step) if model else (step, None)
            steps.append(name)
            model = _model_of(field.annotation) if field else None
        return tuple(steps)

    def knows(self, path: Path) -> bool:
        """Say whether a key of this canonical path exists."""
        model = self._settings
        for depth, step in enumerate(path, start=1):
            field = model.model_fields.get(step)
            if field is None:
                return model.model_config.get("extra") == "allow"
            inner = _model_of(field.annotation)
            if inner is None:  # a value; only one that is a mapping has keys
                return depth == len(path) or _may_be_mapping(field.annotation)
            model = inner
        return True

    def ignores(self, path: Path) -> bool:
        """Say whether the key belongs to a section that only other services use."""
        return path[0] in SECTIONS and path[0] not in self._settings.model_fields

    def nearest(self, path: Path) -> str | None:
        """Name the key most like this one, if any is."""
        every = [".".join(key) for key in self.every()]
        return _nearest(".".join(path), every) or next(
            (key for key in every if key.rpartition(".")[2] == path[-1]), None
        )

    def nearest_variable(self, name: str, prefix: str) -> str | None:
        """Name the variable most like this one, if any is."""
        known = set(self.every())
        names = [f"{prefix}_{short}" for short, path in SHORT.items() if path in known]
        names += [f"{prefix}_{'__'.join(path).upper()}" for path in self.every()]
        return _nearest(name, names)

    def every(self) -> Iterator[Path]:
        """Go through all keys in the order of their declaration."""
        yield from _every(self._settings, ())

    def annotation(self, path: Path) -> object:
        """Give the type of the value under a canonical path; `None` where there is none."""
        model: type[BaseModel] | None = self._settings
        annotation: object = None
        for step in path:
            field = model.model_fields.get(step) if model else None
            if field is None:
                return None
            annotation = field.annotation
            model = _model_of(annotation)
        return annotation

    def parse(self, path: Path, value: object) -> object:
        """Read a text as what the key's type asks for; other values are left as they are.

        A list may be written as `a, b, c` or as JSON, a mapping as JSON; an empty text means
        `None` where that is allowed. Numbers and the like are left to validation.
        """
        if not isinstance(value, str):
            return value
        annotation = self.annotation(path)
        choices = _choices(annotation)
        text = value.strip()
        if not text and type(None) in choices:
            return None
        origins = [get_origin(choice) or choice for choice in choices]
        if text[:1] in {"[", "{"} and any(_holds_many(origin) for origin in origins):
            try:
                return pydantic_core.from_json(text)
            except ValueError:
                return value
        if any(_is_sequence(origin) for origin in origins) and str not in choices:
            return [item.strip() for item in text.split(",") if item.strip()]
        return value

    def is_section(self, path: Path) -> bool:
        """Say whether a canonical path leads to a section rather than a value."""
        return _model_of(self.annotation(path)) is not None

    def is_secret(self, path: Path) -> bool:
        """Say whether the type of a key calls it a secret."""
        return not {SecretStr, SecretBytes}.isdisjoint(_choices(self.annotation(path)))


def _every(model: type[BaseModel], path: Path) -> Iterator[Path]:
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is None:
            yield (*path, name)
        else:
            yield from _every(inner, (*path, name))


def _find(model: type[BaseModel], step: str) -> tuple[str, FieldInfo | None]:
    if field := model.model_fields.get(step):
        return step, field
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        aliases = alias.choices if isinstance(alias, AliasChoices) else [alias, field.alias]
        if step in aliases:
            return name, field
    return step, None


def _choices(annotation: object) -> list[Any]:
    """Take a union apart, and look through `Annotated`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _choices(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [choice for argument in get_args(annotation) for choice in _choices(argument)]
    return [annotation]


def _model_of(annotation: object) -> type[BaseModel] | None:
    models = [c for c in _choices(annotation) if isinstance(c, type) and issubclass(c, BaseModel)]
    return models[0] if len(models) == 1 else None


def _is_sequence(origin: object) -> bool:
    return (
        isinstance(origin, type)
        and issubclass(origin, Collection)
        and not issubclass(origin, str | bytes | Mapping)
    )


def _holds_many(origin: object) -> bool:
    return _is_sequence(origin) or (
        isinstance(origin, type) and issubclass(origin, Mapping | BaseModel)
    )


def _may_be_mapping(annotation: object) -> bool:
    """Say whether a value may have keys of its own: a mapping, or a type that is not plain."""
    plain = (str, bytes, int, float, bool, SecretStr, SecretBytes, type(None))
    return any(
        choice not in plain and not _is_sequence(get_origin(choice) or choice)
        for choice in _choices(annotation)
    )


def _nearest(word: str, words: Collection[str]) -> str | None:
    found = get_close_matches(word, words, n=1, cutoff=0.6)
    return found[0] if found else None

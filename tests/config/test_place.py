from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config import ConfigError, find_root, inside_container

Write = Callable[..., Path]


def test_the_argument_goes_before_the_variable_before_the_working_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = []
    for name in ("argument", "variable", "parent"):
        folder = tmp_path / name
        (folder / "config").mkdir(parents=True)
        (folder / "config" / "shared.yml").touch()
        roots.append(folder.resolve())
    argument, variable, parent = roots
    below = parent / "services" / "credit"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    environ = {"GLAM_CONFIG_ROOT": str(variable)}
    assert find_root(argument, environ) == argument
    assert find_root(None, environ) == variable
    assert find_root(None, {}) == parent


@pytest.mark.parametrize("how", ["argument", "variable", "working directory"])
def test_without_a_root_the_error_names_what_was_tried(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ConfigError) as caught:
        find_root(
            nowhere if how == "argument" else None,
            {"GLAM_CONFIG_ROOT": str(nowhere)} if how == "variable" else {},
        )
    text = str(caught.value)
    assert how in text or "GLAM_CONFIG_ROOT" in text
    assert str(tmp_path if how == "working directory" else nowhere) in text
    assert "config/shared.yml" in text


@pytest.mark.parametrize(
    ("environ", "marks", "inside"),
    [
        ({}, [], False),
        ({}, [".dockerenv"], True),
        ({}, ["run/.containerenv"], True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, [], True),
        ({"GLAM_IN_CONTAINER": "false"}, [".dockerenv"], False),
        ({"GLAM_IN_CONTAINER": "True"}, [], True),
        ({"GLAM_IN_CONTAINER": ""}, [".dockerenv"], True),
    ],
)
def test_inside_a_container_is_told_or_seen(
    environ: dict[str, str], marks: list[str], inside: bool, tmp_path: Path
) -> None:
    for mark in marks:
        (tmp_path / mark).parent.mkdir(exist_ok=True)
        (tmp_path / mark).touch()
    assert inside_container(environ, filesystem=tmp_path) is inside

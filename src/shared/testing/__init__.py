"""Tests of services against real servers; the fixtures are in `shared.testing.plugin`."""

__all__: list[str] = []

"""A path of the first design: what it names lives in `shared.legacy.mappers.crud_mapper`."""

from shared.legacy.mappers.crud_mapper import *  # noqa: F403

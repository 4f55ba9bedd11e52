"""A path of the first design: what it names lives in `shared.legacy.mappers.base`."""

from shared.legacy.mappers.base import *  # noqa: F403

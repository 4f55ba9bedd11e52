"""A path of the first design: what it names lives in `shared.legacy.api.tracing`."""

from shared.legacy.api.tracing import *  # noqa: F403

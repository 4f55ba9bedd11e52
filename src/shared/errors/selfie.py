"""A path of the first design: what it names lives in `shared.platform.errors.selfie`."""

from shared.platform.errors.selfie import *  # noqa: F403

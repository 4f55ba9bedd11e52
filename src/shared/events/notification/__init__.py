"""A path of the first design; what it names lives in `shared.platform` and `shared.legacy`."""

from shared.legacy.events.notification import *  # noqa: F403
from shared.platform.notification import *  # noqa: F403

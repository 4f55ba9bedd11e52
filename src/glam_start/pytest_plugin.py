"""What pytest loads where glam-shared is installed: the fixtures of `shared.testing.plugin`."""

import pytest

from glam_start import wrong_shared

if sentence := wrong_shared():
    raise pytest.UsageError(f"glam-shared's fixtures: {sentence}")

from shared.testing.plugin import *  # noqa: F403 - only now is it known to be ours

"""What holds for every test; the fixtures with servers come from `shared.testing.plugin`."""

import os

from hypothesis import settings

# No deadline, since a busy machine is no fault; the same examples on every run of CI.
settings.register_profile("glam", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("glam")

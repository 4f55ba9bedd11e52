"""``python -m glam_start``: the command ``glam`` of this very interpreter."""

from glam_start import main

main()

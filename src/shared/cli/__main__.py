"""``python -m shared.cli``: the command ``glam`` of this very interpreter."""

from shared.cli import main

main()

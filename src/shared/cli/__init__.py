"""The command-line tool ``glam``."""

from shared.cli.app import main

__all__ = ["main"]

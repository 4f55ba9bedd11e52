"""What goes wrong before a service runs: a declaration that cannot hold."""

from __future__ import annotations


class DeclarationError(TypeError):
    """A service, handler or provider is declared in a way that cannot work.

    Raised while modules are imported or while the service is assembled, never while it runs. The
    message says what was wrong and what would be right.
    """

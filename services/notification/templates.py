"""The templates of mails: for each type a subject, a text and an HTML form."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

from shared.platform.errors.notification import TemplateNotFoundError, TemplateRenderError

__all__ = ["Rendered", "Templates"]

_FORMS = ("subject.txt", "txt", "html")


class Rendered(NamedTuple):
    """A mail's words."""

    subject: str
    text: str
    html: str


class Templates:
    """The templates of a folder: ``<type>.subject.txt``, ``<type>.txt`` and ``<type>.html``.

    They run in a sandbox, and HTML escapes what is filled in. A type is one of the files that are
    there when this is made, never a path.
    """

    def __init__(self, folder: Path) -> None:
        self._environment = SandboxedEnvironment(
            loader=FileSystemLoader(folder),
            autoescape=lambda name: name is not None and name.endswith(".html"),
            undefined=StrictUndefined,
        )
        files = {file.name for file in folder.iterdir()}
        self.types = frozenset(
            name.removesuffix(".subject.txt")
            for name in files
            if name.endswith(".subject.txt")
            and all(f"{name.removesuffix('.subject.txt')}.{form}" in files for form in _FORMS)
        )

    def render(self, notification_type: str, content: Mapping[str, object]) -> Rendered:
        """Fill the templates of a type.

        Raises:
            TemplateNotFoundError: there is no such type.
            TemplateRenderError: variables are missing, all of which it names, or a template fails.
        """
        if notification_type not in self.types:
            raise TemplateNotFoundError(
                f"No template for {notification_type!r}; known: {', '.join(sorted(self.types))}",
                template_name=notification_type,
            )
        names = [f"{notification_type}.{form}" for form in _FORMS]
        missing = sorted(set().union(*map(self._variables, names)) - set(content))
        if missing:
            raise TemplateRenderError(
                f"Template {notification_type!r} misses {', '.join(missing)}",
                template_name=notification_type,
                missing_variables=missing,
            )
        try:
            subject, text, html = (
                self._environment.get_template(name).render(content) for name in names
            )
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise TemplateRenderError(
                f"Template {notification_type!r} failed: {error}",
                template_name=notification_type,
                render_error=str(error),
            ) from error
        # A subject is one line, whatever the values filled in hold.
        return Rendered(" ".join(subject.split()), text, html)

    def _variables(self, name: str) -> set[str]:
        loader = self._environment.loader
        assert loader is not None  # noqa: S101 - given in the constructor
        source, _, _ = loader.get_source(self._environment, name)
        return find_undeclared_variables(self._environment.parse(source))

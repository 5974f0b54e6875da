"""A griffe extension: a docstring's examples become code blocks; Markdown would read `>>>` as three nested quotes."""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^(>>> .*(?:\n.*\S.*)*)", re.MULTILINE)


class Doctests(Extension):
    """Fences each example."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:  # noqa: ARG002  griffe hands on what future versions add
        """Rewrite the object's docstring, once it is collected."""
        if obj.docstring and "```" not in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(r"\n```pycon\n\1\n```\n", obj.docstring.value)

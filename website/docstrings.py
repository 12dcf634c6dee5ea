"""How the site reads docstrings: examples become code blocks, and roles become links."""

import re

import griffe

_EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?! *$).*)*", re.M)
_ROLE = re.compile(r":(?:func|meth|class|mod):`(~?)([\w.]+)`")


def readable(text: str) -> str:
    """A docstring's text as the site's Markdown: examples in fences, names for roles."""
    text = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
    return _ROLE.sub(lambda found: f"`{found[2].removeprefix('peppp.')}`", text)


class Docstrings(griffe.Extension):
    """Applies :func:`readable` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of a loaded object."""
        if obj.docstring is not None and "```pycon" not in obj.docstring.value:
            obj.docstring.value = readable(obj.docstring.value)

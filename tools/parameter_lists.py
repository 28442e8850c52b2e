"""For the documentation: docstring lines such as "stride: how far the window moves" become a list.

The docstrings explain arguments as people write, a line each. Markdown would run those lines together.
"""

import re

import griffe

_LINE = re.compile(r"^(\w+(?:, \w+)*): (?=\S)")


def as_list(text: str, known: set[str]) -> str:
    """Lines that begin with known names and a colon, made list items; what they go on with is indented."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        found = _LINE.match(line)
        if found and set(found[1].split(", ")) <= known:
            if not inside:
                lines.append("")
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            lines.append(f"- {names}: {line[found.end() :]}")
            inside = True
        elif inside and line.strip() and not line.startswith(("Returns ", "Raises ")):
            lines.append("    " + line.strip())
        else:
            lines.extend(["", line] if inside else [line])
            inside = False
    return "\n".join(lines)


class ParameterLists(griffe.Extension):
    """Applied to all functions and classes that mkdocstrings reads."""

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        if func.docstring:
            func.docstring.value = as_list(func.docstring.value, {p.name.lstrip("*") for p in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: object) -> None:
        if cls.docstring:
            init = cls.members.get("__init__")
            known = {p.name for p in init.parameters} if isinstance(init, griffe.Function) else set()
            cls.docstring.value = as_list(cls.docstring.value, known | set(cls.members))

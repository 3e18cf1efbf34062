"""The texts below the fields of a config, which become descriptions in the JSON Schema.

They are read from the source when a schema is asked for, and not when a class is made: that would be a sixth of what
every start takes.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap


def below_field(owner: type, name: str) -> str | None:
    """Return the text below a field of a class or, when it is inherited, of the class that has it; None without one."""
    for kind in owner.__mro__:
        if name in inspect.get_annotations(kind):
            return _below_fields(kind).get(name)
    return None


@functools.cache
def _below_fields(kind: type) -> dict[str, str]:
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, SyntaxError):
        # Without a source, as of a class that was typed in, there is nothing to say.
        return {}
    body = parsed.body[0].body if isinstance(parsed.body[0], ast.ClassDef) else []
    found: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found

"""Checks of the values that the Python API is given, against the types that annotate them."""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from tsmzoo.errors import ZooError
from tsmzoo.text import CELL, of_error, one_line


def check(name: str, value: Any, kind: Any, error: type[ZooError] = ZooError) -> None:
    """Raise `error` if `value`, called `name`, is not of the annotated type `kind`: another type, or out of bounds."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as reason:
        choices = ", ".join(map(str, _choices(kind)))
        why = f"it is one of {choices}" if choices else of_error(reason)
        raise error(f"{name} cannot be {one_line(repr(value), CELL)}: {why}") from None


def check_fields(checked: Any, error: type[ZooError] = ZooError) -> None:
    """Raise `error` if a field of `checked`, a dataclass or a struct, is not of its annotated type."""
    for name, kind in get_type_hints(type(checked), include_extras=True).items():
        check(name, getattr(checked, name), kind, error)


def _choices(kind: Any) -> tuple[Any, ...]:
    """Return the values of a Literal, and of those in a union."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return tuple(choice for part in get_args(kind) for choice in _choices(part))
    return ()

"""Checks of the values that the Python API is given, against the types that annotate them."""

from __future__ import annotations

from dataclasses import KW_ONLY
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from tsmzoo.errors import UsageError, ZooError
from tsmzoo.text import CELL, of_error, one_line


def check(name: str, value: Any, kind: Any, error: type[ZooError] = UsageError) -> Any:
    """Return `value`, called `name`, with Python's own numbers in place of NumPy's.

    Raises `error` if it is not of the annotated type `kind`: another type, or out of bounds.
    """
    value = _plain(value)
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as reason:  # the second for half a surrogate pair
        choices = ", ".join(map(str, _choices(kind)))
        why = f"it is one of {choices}" if choices else of_error(reason)
        raise error(f"`{name}` cannot be {one_line(repr(value), CELL)}: {why}") from None
    return value


def check_fields(checked: Any) -> None:
    """Check each field of `checked`, a dataclass or a struct, against its annotated type. Raises UsageError."""
    replace = msgspec.structs.force_setattr if isinstance(checked, msgspec.Struct) else object.__setattr__
    for name, kind in get_type_hints(type(checked), include_extras=True).items():
        if kind is not KW_ONLY:
            replace(checked, name, check(name, getattr(checked, name), kind))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _choices(kind: Any) -> tuple[Any, ...]:
    """Return the values of a Literal, and of those in a union."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return tuple(choice for part in get_args(kind) for choice in _choices(part))
    return ()

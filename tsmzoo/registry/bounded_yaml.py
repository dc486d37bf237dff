"""YAML of registries and recipes, read within bounds and faster than PyYAML's own loader.

PyYAML recurses without limit, and its aliases multiply: a file of a few kilobytes ends the process or fills the memory.
Values are built straight from libyaml's events. For the project's registry this takes two thirds of the time of
`yaml.load(text, CSafeLoader)`, which `list` and `info` would wait for.
"""

from __future__ import annotations

from typing import Any

import yaml

#: libyaml's loader, 6 times as fast; PyYAML may have been built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Bytes, or characters, of a document: twenty times the project's registry.
MAX_BYTES = 4 * 2**20
#: Levels of lists and mappings, one in another. What an alias stands for counts where the alias stands.
MAX_LEVELS = 50
#: Values of a document, keys included. What an alias stands for counts wherever an alias stands.
MAX_VALUES = 200_000
#: Characters of a number or a date: the cost of converting digits is quadratic.
MAX_DIGITS = 400

_STR = "tag:yaml.org,2002:str"
#: The anchor of a collection that is not complete.
_OPEN = object()


def parse(text: str | bytes) -> Any:
    """Return what `yaml.safe_load` returns for a document without tags other than !!str.

    Raises yaml.YAMLError or ValueError (a date that does not exist), as `yaml.safe_load` does, with the line. Another
    tag, and a document beyond one of the bounds, is a yaml.YAMLError as well.

    >>> parse("models: [{id: mine, frames: 8}]")
    {'models': [{'id': 'mine', 'frames': 8}]}
    """
    if len(text) > MAX_BYTES:
        raise yaml.YAMLError(f"more than {MAX_BYTES} bytes")
    loader = _Loader(text)
    try:
        return _Reader(loader).document()
    except OverflowError as error:  # a date beyond the calendar
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


class _Reader:
    """Builds values from the events of one document."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.next = loader.get_event
        self.left = MAX_VALUES
        self.anchors: dict[str, Any] = {}

    def document(self) -> Any:
        self.next()  # the start of the stream
        if type(self.next()) is yaml.StreamEndEvent:
            return None
        value = self.value(self.next(), 0)
        self.next()  # the end of the document
        if type(event := self.next()) is not yaml.StreamEndEvent:
            raise _error("a second document", event)
        return value

    def value(self, event: Any, level: int) -> Any:
        """Return the value that begins with `event`, inside `level` lists and mappings."""
        kind = type(event)
        self.left -= 1
        if self.left < 0:
            raise _too_many(event)
        if kind is yaml.AliasEvent:
            return self.alias(event, level)
        if event.tag is not None and (event.tag != _STR or kind is not yaml.ScalarEvent):
            raise _error(f"the tag {event.tag} is not read: write the value without it", event)
        if event.anchor is not None:
            if event.anchor in self.anchors:
                raise _error(f"a second anchor &{event.anchor}", event)
            self.anchors[event.anchor] = _OPEN
        if kind is yaml.ScalarEvent:
            value = self.scalar(event)
        elif level == MAX_LEVELS:
            raise _too_deep(event)
        else:
            value = self.sequence(level + 1) if kind is yaml.SequenceStartEvent else self.mapping(level + 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = value
        return value

    def scalar(self, event: Any) -> Any:
        text = event.value
        # The first character tells most texts from numbers, dates, true, null and the like.
        if not event.implicit[0] or text[:1] not in self.loader.yaml_implicit_resolvers:
            return text
        tag = self.loader.resolve(yaml.ScalarNode, text, event.implicit)
        if tag != _STR and len(text) > MAX_DIGITS:
            raise _error(f"a number of more than {MAX_DIGITS} digits", event)
        return self.loader.construct_object(yaml.ScalarNode(tag, text, event.start_mark, event.end_mark))

    def sequence(self, level: int) -> list[Any]:
        values = []
        while type(event := self.next()) is not yaml.SequenceEndEvent:
            values.append(self.value(event, level))
        return values

    def mapping(self, level: int) -> dict[Any, Any]:
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        while type(event := self.next()) is not yaml.MappingEndEvent:
            if type(event) is yaml.ScalarEvent and event.value == "<<" and event.implicit[0]:
                event = self.next()
                value = self.value(event, level)
                for other in reversed(value) if isinstance(value, list) else [value]:
                    if not isinstance(other, dict):
                        raise _error("<< merges a mapping or a list of mappings", event)
                    merged |= other
                continue
            key = self.value(event, level)
            if isinstance(key, list | dict):
                raise _error("a list or mapping as a key", event)
            own[key] = self.value(self.next(), level)
        return merged | own if merged else own

    def alias(self, event: Any, level: int) -> Any:
        value = self.anchors.get(event.anchor, _OPEN)
        if value is _OPEN:
            what = "is inside its anchor" if event.anchor in self.anchors else "has no anchor"
            raise _error(f"the alias *{event.anchor} {what}", event)
        # Never more than was counted for the anchor, so that all walks together stay within the bound.
        values, levels = _extent(value)
        self.left -= values - 1
        if self.left < 0:
            raise _too_many(event)
        if level + levels > MAX_LEVELS:
            raise _too_deep(event)
        return value


def _extent(value: Any) -> tuple[int, int]:
    """Return the number of values in `value`, itself and keys included, and its levels of lists and mappings."""
    if not isinstance(value, list | dict):
        return 1, 0
    keys = len(value) if isinstance(value, dict) else 0
    parts = [_extent(part) for part in (value.values() if isinstance(value, dict) else value)]
    return 1 + keys + sum(values for values, _ in parts), 1 + max((levels for _, levels in parts), default=0)


def _error(what: str, event: Any) -> yaml.YAMLError:
    return yaml.YAMLError(f"{what}, line {event.start_mark.line + 1}")


def _too_many(event: Any) -> yaml.YAMLError:
    return _error(f"more than {MAX_VALUES} values", event)


def _too_deep(event: Any) -> yaml.YAMLError:
    return _error(f"more than {MAX_LEVELS} levels of lists and mappings", event)

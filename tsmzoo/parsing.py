"""YAML in half the time of PyYAML's loader, for which `list` and `info` waited: the same values, the same errors."""

from __future__ import annotations

from typing import Any

import yaml

#: libyaml's, 6 times as fast, but for a PyYAML built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Rare(Exception):
    """An anchor, a tag, a merge key, a key that is no scalar, another document: all that is left to PyYAML."""


def parse(text: str | bytes) -> Any:
    """Return what `yaml.safe_load` returns. Raises what it raises: yaml.YAMLError, ValueError or RecursionError."""
    loader = _Loader(text)
    try:
        loader.get_event()  # the stream's start
        if type(loader.get_event()) is not yaml.DocumentStartEvent:
            raise _Rare
        value = _value(loader, loader.get_event())
        loader.get_event()  # the document's end
        if type(loader.get_event()) is not yaml.StreamEndEvent:
            raise _Rare
        return value
    except _Rare:
        return yaml.load(text, Loader=_Loader)
    finally:
        loader.dispose()


def _value(loader: Any, event: Any) -> Any:
    """Make a value of the parser's events, without the tree of nodes in between."""
    kind = type(event)
    if kind is yaml.AliasEvent or event.anchor is not None or event.tag is not None:
        raise _Rare
    if kind is yaml.ScalarEvent:
        text, (plain, _) = event.value, event.implicit
        # Numbers, dates, true, null and the like are told by their first character before they are looked at closely.
        if not plain or text[:1] not in loader.yaml_implicit_resolvers:
            return text
        tag = loader.resolve(yaml.ScalarNode, text, event.implicit)
        if tag == "tag:yaml.org,2002:merge":
            raise _Rare
        return loader.construct_object(yaml.ScalarNode(tag, text, event.start_mark, event.end_mark))
    if kind is yaml.SequenceStartEvent:
        values = []
        while type(event := loader.get_event()) is not yaml.SequenceEndEvent:
            values.append(_value(loader, event))
        return values
    mapping = {}
    while type(event := loader.get_event()) is not yaml.MappingEndEvent:
        if type(event) is not yaml.ScalarEvent:
            raise _Rare
        key = _value(loader, event)
        mapping[key] = _value(loader, loader.get_event())
    return mapping

"""YAML in half the time of PyYAML's loader, for which `list` and `info` waited: the same values, the same errors.

And within bounds, since libyaml's composer and PyYAML's constructors recurse without any, and aliases multiply.
"""

from __future__ import annotations

from typing import Any

import yaml

#: libyaml's, 6 times as fast, but for a PyYAML built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Bytes, or characters, of a document: twenty times the project's registry.
MOST = 4 * 2**20
#: Levels of lists and mappings, one in another; those that an alias stands for count where it stands.
LEVELS = 50
#: Values, those that an alias stands for counted wherever it stands; and the characters of a number or a date.
VALUES = 200_000
DIGITS = 400


class TooMuch(yaml.YAMLError):
    """More than any document that is meant."""


class _Rare(Exception):
    """An anchor, a tag, a merge key, a key that is no scalar, another document: all that is left to PyYAML."""


def parse(text: str | bytes) -> Any:
    """Return what `yaml.safe_load` returns. Raises what it raises: yaml.YAMLError or ValueError; TooMuch is one."""
    if len(text) > MOST:
        raise TooMuch(f"it has more than {MOST} bytes")
    loader = _Loader(text)
    loader.left = VALUES
    try:
        loader.get_event()  # the stream's start
        if type(loader.get_event()) is not yaml.DocumentStartEvent:
            raise _Rare
        value = _value(loader, loader.get_event(), 0)
        loader.get_event()  # the document's end
        if type(loader.get_event()) is not yaml.StreamEndEvent:
            raise _Rare
        return value
    except _Rare:
        _check(text)
        try:
            return yaml.load(text, Loader=_Loader)
        except (AttributeError, IndexError, KeyError, OverflowError) as error:
            # PyYAML's constructors of a text that is not what its tag says.
            raise yaml.YAMLError(f"a tag does not fit its value ({type(error).__name__}: {error})") from None
    except OverflowError as error:  # a date beyond the calendar
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def _value(loader: Any, event: Any, level: int) -> Any:
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
        if tag != "tag:yaml.org,2002:str" and len(text) > DIGITS:
            raise _too_long(event)
        return loader.construct_object(yaml.ScalarNode(tag, text, event.start_mark, event.end_mark))
    if level == LEVELS:
        raise _too_deep(event)
    if kind is yaml.SequenceStartEvent:
        values = []
        while type(event := loader.get_event()) is not yaml.SequenceEndEvent:
            values.append(_value(loader, event, level + 1))
            loader.left -= 1
            if loader.left < 0:
                raise _too_many(event)
        return values
    mapping = {}
    while type(event := loader.get_event()) is not yaml.MappingEndEvent:
        if type(event) is not yaml.ScalarEvent:
            raise _Rare
        key = _value(loader, event, level + 1)
        mapping[key] = _value(loader, loader.get_event(), level + 1)
        loader.left -= 2
        if loader.left < 0:
            raise _too_many(event)
    return mapping


def _check(text: str | bytes) -> None:
    """Raise TooMuch where the document is more than PyYAML, or who walks through its value, could bear."""
    loader = _Loader(text)
    #: Values and levels of what each anchor names; None while that is not complete.
    anchors: dict[str | None, tuple[int, int] | None] = {}
    #: Of the document, and of each list and mapping that is open: its anchor, values and levels so far.
    open_: list[tuple[str | None, int, int]] = [(None, 0, 0)]
    try:
        while type(event := loader.get_event()) is not yaml.StreamEndEvent:
            if isinstance(event, yaml.CollectionStartEvent):
                if event.anchor is not None:
                    anchors[event.anchor] = None
                open_.append((event.anchor, 1, 1))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, values, levels = open_.pop()
                if anchor is not None:
                    anchors[anchor] = values, levels
                _add(open_, values, levels)
            elif isinstance(event, yaml.AliasEvent):
                named = anchors.get(event.anchor, (1, 0))  # of none, PyYAML says what is wrong
                if named is None:
                    raise TooMuch(f"the alias {event.anchor!r} stands in what it names, line {_line(event)}")
                _add(open_, *named)
            elif isinstance(event, yaml.ScalarEvent):
                # Whose tag says otherwise is no text: what its digits cost is quadratic.
                tag = event.tag if event.tag not in (None, "!") else None
                if tag is None and event.implicit[0]:
                    tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
                if tag in _OF_DIGITS and len(event.value) > DIGITS:
                    raise _too_long(event)
                if event.anchor is not None:
                    anchors[event.anchor] = 1, 0
                _add(open_, 1, 0)
            if max(0, len(open_) - 2) + open_[-1][2] > LEVELS:
                raise _too_deep(event)
            if open_[-1][1] > VALUES:
                raise _too_many(event)
    finally:
        loader.dispose()


_OF_DIGITS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}


def _add(open_: list[tuple[str | None, int, int]], values: int, levels: int) -> None:
    """Add what is complete to the collection that it stands in."""
    anchor, own_values, own_levels = open_[-1]
    open_[-1] = anchor, own_values + values, max(own_levels, levels + (len(open_) > 1))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _too_deep(event: Any) -> TooMuch:
    return TooMuch(f"more than {LEVELS} levels of lists and mappings, line {_line(event)}")


def _too_many(event: Any) -> TooMuch:
    return TooMuch(f"more than {VALUES} values, line {_line(event)}")


def _too_long(event: Any) -> TooMuch:
    return TooMuch(f"a number of more than {DIGITS} digits, line {_line(event)}")

"""The JSON schema of registries, `schema.json`, from the structs of `schema` and the comments on their fields.

`make readme` writes it. It follows draft 7 and ECMAScript's patterns, which every editor knows.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import msgspec

from tsmzoo.registry.schema import Entry, LabelMap, Mirror, Normalisation, Pinned, Published, Registry, Result, Source

#: The comment on a field, and the field's name.
_COMMENTED = re.compile(r"((?:^ +#: .*\n)+)^ +(\w+):", re.MULTILINE)


def text() -> str:
    """Return the content of schema.json."""
    definitions = msgspec.json.schema(Registry)["$defs"]
    for kind in (Entry, LabelMap, Mirror, Normalisation, Pinned, Published, Result, Source):
        definition = definitions[kind.__name__]
        definition["description"] = inspect.getdoc(kind)
        keys = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}
        for comment, name in _COMMENTED.findall(inspect.getsource(kind)):
            definition["properties"][keys[name]]["description"] = " ".join(comment.replace("#: ", "").split())
    definitions["Entry"]["required"].remove("classes")  # those of its labels
    root = definitions.pop("Registry")
    schema = {"$schema": "http://json-schema.org/draft-07/schema#"} | root | {"$defs": definitions}
    return json.dumps(_draft7(schema), indent=1, ensure_ascii=False) + "\n"


def _draft7(part: Any) -> Any:
    """Return `part` of a schema with draft 7's word for the items of a tuple, and `$` for Python's end of a text."""
    if isinstance(part, list):
        return [_draft7(each) for each in part]
    if not isinstance(part, dict):
        return part
    if "prefixItems" in part:
        part = {key: value for key, value in part.items() if key != "prefixItems"} | {"items": part["prefixItems"]}
    if isinstance(part.get("pattern"), str):
        part = part | {"pattern": part["pattern"].replace(r"\Z", "$")}
    return {key: _draft7(value) for key, value in part.items()}


if __name__ == "__main__":
    print(text(), end="")

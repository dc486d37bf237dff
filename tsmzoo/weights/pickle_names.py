"""Decide which names a pickle may contain: classes, and functions that construct data. Nothing is looked up.

Names that no data needs are refused, since an honest checkpoint has none: most of Python's library by an allowlist, and
functions of other libraries when they are called.
"""

from __future__ import annotations

import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass

from tsmzoo.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function in a pickle; never looked up."""

    name: str
    #: A function of another library, which a pickle may name but not call.
    function: bool = False


class MalformedPickle(ValueError):
    """A pickle that no pickler writes."""


DICTS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
#: Allowed names of Python's library, by module: data, and types that data refers to. Everything else is refused.
_DATA = {
    "_codecs": "encode",
    "argparse": "Namespace",
    "array": "array _array_reconstructor",
    "builtins": "object list tuple set frozenset int float bool complex str bytes bytearray slice range"
    " iter reversed enumerate zip type Ellipsis NotImplemented",
    "collections": "deque ChainMap UserDict UserList UserString",
    "copyreg": "_reconstructor __newobj__ __newobj_ex__",
    "dataclasses": "_MISSING_TYPE",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "functools": "partial",
    "http": "HTTPStatus",
    "inspect": "_empty Parameter Signature BoundArguments _ParameterKind",
    "ipaddress": "IPv4Address IPv4Network IPv6Address IPv6Network",
    "itertools": "count cycle repeat chain islice product permutations combinations",
    "logging": "getLogger",
    "operator": "itemgetter",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "queue": "Empty Full",
    "random": "Random SystemRandom",
    "re": "_compile",
    "signal": "Signals",
    "statistics": "NormalDist",
    "string": "Template",
    "time": "struct_time",
    "types": "SimpleNamespace GenericAlias NoneType UnionType EllipsisType NotImplementedType",
    "uuid": "UUID SafeUUID",
    "zipfile": "BadZipFile LargeZipFile",
    "zoneinfo": "ZoneInfo",
}
_STANDARD = DICTS | {f"{module}.{name}" for module, names in _DATA.items() for name in names.split()}
#: More allowed names, by pattern: typing's types, functions of numbers, and exceptions.
_STANDARD_KINDS = re.compile(
    r"(typing|collections\.abc|numbers|abc)\.[A-Z]\w+|math\.[a-z]\w+|[\w.]+\.[A-Z]\w*(Error|Exception|Warning|Exit|Interrupt)"
    r"|builtins\.(StopIteration|StopAsyncIteration|(Base)?ExceptionGroup|BaseException|Exception|Warning)",
    re.ASCII,
)
#: Functions of other libraries that construct data.
_MAKERS = re.compile(
    r"numpy\.(_?core\.)?(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer|umath\._ufunc_reconstruct)"
    r"|numpy\.(dtype|ndarray|recarray|matrix|bool_?|object_?|str_?|bytes_?|void|u?int\w*|float\w*|complex\w*)"
    r"|numpy\.(ma\.core\._mareconstruct|random\._pickle\.__\w+_ctor"
    r"|random\.bit_generator\.__pyx_unpickle_\w+)"
    r"|torch\.(u?int|q?u?int|b?float|complex|bits)\d\w*|torch\.(bool|half|double|float|long|int|short|cfloat|cdouble)"
    r"|torch\.(strided|device|sparse_\w+|per_(tensor|channel)_\w+|preserve_format|contiguous_format|channels_last\w*)"
    r"|torch\.(serialization\._get_layout|_utils\._rebuild_\w+|_tensor\._rebuild_\w+)"
)
#: Functions that may be called only for a member of a class (enumerations) or a type with arguments: the modules whose
#: classes they may take; without modules, all but Python's own.
MEMBER_FUNCTIONS: dict[str, tuple[str, ...]] = {"builtins.getattr": (), "operator.getitem": ("typing",)}
_CLASS = re.compile(r"_*[A-Z]\w*(\._*[A-Z]\w*)*", re.ASCII)
#: A function or a method; never through a module, which leads to all that it imports.
_FUNCTION = re.compile(r"(_*[A-Z]\w*\.)*[a-zA-Z_]\w*", re.ASCII)
#: Constructed by a method of its own.
ZONE = Global("zoneinfo.ZoneInfo")
STANDARD_MODULES = {"__builtins__", *sys.stdlib_module_names, *(name.partition(".")[0] for name in IMPORT_MAPPING)}


def allowed_global(module: str, name: str) -> Global:
    """Return a class or function by its name. Raises CheckpointError if no data needs it."""
    # Protocol 2 has Python 2's names.
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    full = f"{module}.{name}"
    if len(full) > 300 or not re.fullmatch(r"[\w.]+", full, re.ASCII):
        raise MalformedPickle("it names a class as nobody does")
    if full.partition(".")[0] in STANDARD_MODULES:
        if full not in _STANDARD and full not in MEMBER_FUNCTIONS and not _STANDARD_KINDS.fullmatch(full):
            refuse(full)
        return Global(full)
    if _CLASS.fullmatch(name) or _MAKERS.fullmatch(full):
        return Global(full)
    if not _FUNCTION.fullmatch(name):
        refuse(full)
    return Global(full, function=True)


def refuse(name: str) -> None:
    raise CheckpointError(
        f"asks to run {name!r} when loaded, which no weights need; refused, get it from its publisher"
    ) from None

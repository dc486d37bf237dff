"""Read pickles as plain data: nothing in them is imported, looked up or called.

The opcodes of a pickle are interpreted on a stack of our own. Numbers, texts, lists and dicts stay as they are, a
tensor becomes a `TensorRef`, an array of NumPy or its type a `NumpyObject`, a class or function a `Global`, and an
object of any other class an empty `OpaqueObject`. Names that no data needs (most of Python's library; functions of
other libraries, if they are called) are refused, since an honest checkpoint has none. The number of opcodes is bounded,
and so is the work of each: none iterates over the memo.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from tsmzoo.weights.pickle_names import (
    DICTS,
    MEMBER_FUNCTIONS,
    STANDARD_MODULES,
    ZONE,
    Global,
    MalformedPickle,
    allowed_global,
    refuse,
)

#: The most opcodes of a pickle; each takes at most some 100 bytes of memory beside the file's own texts.
_MOST_STEPS = 5_000_000
#: The most characters of a key: longer ones name no tensor, and hashing them takes time.
_MOST_KEY = 1000
#: Tensors of networks have 5 axes at most.
_MOST_AXES = 16
_MOST_LENGTH = 2**63 - 1
#: The most elements of a tensor, so that its bytes can be counted.
_MOST_NUMBERS = 2**56


@dataclass(frozen=True, slots=True)
class OpaqueObject:
    """Stands for an object of the class `name`."""

    name: str


@dataclass(slots=True, eq=False)
class NumpyObject:
    """Stands for an array of NumPy, or for the type of one: the arguments that make it, and its state as saved."""

    args: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage of a file: its key, the name of its type, and the index of the first element."""

    key: str
    kind: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor as a view of a storage; without storage it is sparse, quantized or has no data, and cannot be loaded."""

    size: tuple[int, ...]
    storage: Storage | None = None
    offset: int = 0
    stride: tuple[int, ...] = ()
    #: The name of its type, if the storage does not have it.
    dtype: str | None = None


def load(file: IO[bytes]) -> tuple[Any, dict[str, str]]:
    """Return the content of the pickle at the position of `file`, and the kinds of its storages by key.

    The position is then after the pickle. Raises CheckpointError if it names something that no weights need;
    ValueError, IndexError, KeyError or OverflowError if it is damaged.
    """
    machine = _Machine()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number >= _MOST_STEPS:
            raise MalformedPickle(f"it has more than {_MOST_STEPS} steps")
        machine.step(opcode.name, argument)
    if len(machine.stack) != 1 or machine.below:
        raise MalformedPickle("it ends too early")
    return machine.stack[0], machine.kinds


# --- tensors -------------------------------------------------------------------------------------------------------


def _non_negative(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > _MOST_AXES:
        raise MalformedPickle("a tensor's shape is none")
    if not all(type(number) is int and 0 <= number <= _MOST_LENGTH for number in value):
        raise MalformedPickle("a tensor's shape is none")
    return tuple(value)


def _lengths(value: Any) -> tuple[int, ...]:
    lengths = _non_negative(value)
    if math.prod(length or 1 for length in lengths) > _MOST_NUMBERS:
        raise MalformedPickle("a tensor's shape is none")
    return lengths


def _view(args: tuple[Any, ...], dtype: Any = None, metadata: Any = None) -> TensorRef:
    storage, offset, size, stride = args[:4]
    if not isinstance(storage, Storage):
        raise MalformedPickle("a tensor has no storage")
    (offset,) = _lengths((offset,))
    size, stride = _lengths(size), _non_negative(stride)
    if len(size) != len(stride):
        raise MalformedPickle("a tensor's strides are not those of its shape")
    if metadata:  # conjugated or negated on reading: not the numbers in the storage
        return TensorRef(size)
    return TensorRef(size, storage, offset, stride, dtype.name if isinstance(dtype, Global) else None)


def _parameter(args: tuple[Any, ...]) -> TensorRef:
    if not isinstance(args[0], TensorRef):
        raise MalformedPickle("a parameter holds no tensor")
    return args[0]


def _subclass(args: tuple[Any, ...]) -> TensorRef:
    """Return a tensor of a subclass or with attributes, which are left out."""
    function, _, inner = args[:3]
    name = function.name if isinstance(function, Global) else ""
    if name == _TYPED or name not in _TENSORS or not isinstance(inner, tuple):
        raise MalformedPickle("a tensor is made of none")
    return _TENSORS[name](inner)


def _of_size(place: int) -> Callable[[tuple[Any, ...]], TensorRef]:
    return lambda args: TensorRef(_lengths(args[place]))


def _sparse(args: tuple[Any, ...]) -> TensorRef:
    parts = args[1] if isinstance(args[1], tuple) else ()
    return TensorRef(_lengths(next((part for part in parts[:_MOST_AXES] if isinstance(part, tuple)), None)))


_TYPED = "torch._tensor._rebuild_from_type_v2"
_TENSORS: dict[str, Callable[[tuple[Any, ...]], TensorRef]] = {
    _TYPED: _subclass,
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": lambda args: _view(args, None, args[6] if len(args) > 6 else None),
    "torch._utils._rebuild_tensor_v3": lambda args: _view(args, args[6], args[7] if len(args) > 7 else None),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_qtensor": _of_size(2),
    "torch._utils._rebuild_meta_tensor_no_storage": _of_size(1),
    "torch._utils._rebuild_wrapper_subclass": _of_size(2),
    "torch._utils._rebuild_sparse_tensor": _sparse,
}
_NUMPY = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.dtype")


# --- the machine ---------------------------------------------------------------------------------------------------


class _Machine:
    """The stack machine that interprets the opcodes of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        #: The stack below each mark.
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.kinds: dict[str, str] = {}
        #: Each class is one Global, however often it is named.
        self.globals: dict[tuple[str, str], Global] = {}
        #: Items that may still be copied: a long list, copied over and over, would fill the memory.
        self.copies = _MOST_STEPS

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _MAKE:
            stack.append(_MAKE[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[_lengths((argument,))[0] % 2**32] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument % 2**32])
        elif name in ("GLOBAL", "STACK_GLOBAL", "INST"):
            self._push_global(name, argument)
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ"):
            self._call(name)
        elif name == "BINPERSID":
            stack.append(found := _storage(stack.pop()))
            if isinstance(found, Storage) and self.kinds.setdefault(found.key, found.kind) != found.kind:
                raise MalformedPickle("it reads the same numbers as of two types")
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in ("POP_MARK", "TUPLE", "LIST", "DICT", "FROZENSET", "APPENDS", "SETITEMS", "ADDITEMS"):
            self._above_mark(name)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(stack) < count:
                raise IndexError("pop from an empty stack")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "APPEND":
            self._append([stack.pop()])
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._set([key, value])
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], NumpyObject):
                stack[-1].state = state
            elif not isinstance(stack[-1], OpaqueObject | dict):
                raise MalformedPickle("it gives attributes to what has none")
        elif name == "POP":
            if stack:
                stack.pop()
            else:
                self._unmark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise MalformedPickle(f"it has a step that torch.save never writes ({name})")

    def _unmark(self) -> list[Any]:
        above, self.stack = self.stack, self.below.pop()
        return above

    def _above_mark(self, name: str) -> None:
        items = self._unmark()
        if name == "TUPLE":
            self.stack.append(tuple(items))
        elif name == "LIST":
            self.stack.append(items)
        elif name == "DICT":
            self.stack.append({})
            self._set(items)
        elif name == "FROZENSET":
            self.stack.append(OpaqueObject("builtins.frozenset"))
        elif name == "SETITEMS":
            self._set(items)
        elif name == "APPENDS":
            self._append(items)
        elif name == "ADDITEMS" and not isinstance(self.stack[-1], OpaqueObject):
            raise MalformedPickle("it adds to what is no set")

    def _append(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], OpaqueObject):
            raise MalformedPickle("it appends to what is no list")

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, OpaqueObject):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise MalformedPickle("it sets items of what has none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Others name no tensor, and to hash them may take for ever.
            if (text := _key_text(key)) is not None:
                target[text] = value
            elif isinstance(key, str) and isinstance(value, TensorRef):
                raise MalformedPickle(f"it names a tensor by {len(key)} characters")

    def _push_global(self, name: str, argument: Any) -> None:
        if name == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
        else:
            module, _, attribute = argument.partition(" ")
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise MalformedPickle("it names a class by what is no text")
        found = self.globals.get((module, attribute)) or allowed_global(module, attribute)
        self.globals[module, attribute] = found
        if name == "INST":
            self.stack.append(self._construct(found, tuple(self._unmark())))
        else:
            self.stack.append(found)

    def _call(self, name: str) -> None:
        """Replace a class or function and its arguments on the stack by what stands for the result."""
        if name == "OBJ":
            class_, *rest = self._unmark()
            args: Any = tuple(rest)
        else:
            if name == "NEWOBJ_EX":
                self.stack.pop()
            args, class_ = self.stack.pop(), self.stack.pop()
        if not isinstance(class_, Global):
            raise MalformedPickle("it calls what is no class; refused")
        if not isinstance(args, tuple):
            raise MalformedPickle("it calls a class with what are no arguments")
        self.stack.append(self._construct(class_, args))

    def _construct(self, class_: Global, args: tuple[Any, ...]) -> Any:
        name = class_.name
        if class_.function:
            refuse(name)
        if name in _TENSORS:
            return _TENSORS[name](args)
        if name.startswith("torch._utils._rebuild_"):  # nested ones, those of other devices
            return TensorRef((0,))
        if name in _NUMPY:
            return NumpyObject(args)
        if name in DICTS:
            return self._dict(args)
        if name == "torch.Size":
            return tuple(_lengths(args[0]))
        if name in ("torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer") and args:
            return _parameter(args)
        if name == "builtins.type" and len(args) != 1:  # with more it makes a class
            refuse(name)
        if name in MEMBER_FUNCTIONS:
            if args[1:] == ("_unpickle",) and args[0] == ZONE:
                return ZONE
            of = args[0].name if args and isinstance(args[0], Global) else "builtins"
            top = of.partition(".")[0]
            if top not in MEMBER_FUNCTIONS[name] if MEMBER_FUNCTIONS[name] else top in STANDARD_MODULES:
                refuse(name)
        return OpaqueObject(name)

    def _dict(self, args: tuple[Any, ...]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for given in args[:2]:  # a dict, or a list of pairs; a default's factory is neither
            if isinstance(given, dict | list):
                self.copies -= len(given)
                if self.copies < 0:
                    raise MalformedPickle("it copies more than any checkpoint holds")
                for pair in given.items() if isinstance(given, dict) else given:
                    if not isinstance(pair, tuple | list) or len(pair) != 2:
                        raise MalformedPickle("it makes a dict of what are no pairs")
                    if (text := _key_text(pair[0])) is not None:
                        made[text] = pair[1]
        return made


def _key_text(key: Any) -> str | None:
    if isinstance(key, str | bytes):
        if len(key) > _MOST_KEY:
            return None
        return key if isinstance(key, str) else key.decode("utf-8", "backslashreplace")
    return str(key) if isinstance(key, int) and abs(key) <= _MOST_LENGTH else None


def _storage(saved: Any) -> Any:
    """Return the object of a persistent id: a storage, or in old files a class with its source."""
    if not isinstance(saved, tuple) or not 4 <= len(saved) <= 6:
        raise MalformedPickle("it refers to what is no storage")
    if saved[0] == "module" and isinstance(saved[1], Global):
        return saved[1]
    _, kind, key, _, _, *view = saved if len(saved) >= 5 else (*saved, None)
    if saved[0] != "storage" or not isinstance(kind, Global) or _key_text(key) is None:
        raise MalformedPickle("it refers to what is no storage")
    offset = 0
    if view and isinstance(view[0], tuple):  # of old files: (key, offset, length) among the numbers of `key`
        (offset,) = _lengths(view[0][1:2])
    return Storage(str(_key_text(key)), kind.name.rpartition(".")[2], offset)


#: Opcodes whose argument is the value.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MAKE: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: OpaqueObject("builtins.set"),
}

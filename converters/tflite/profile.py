"""Time of each operator of a TFLite file, from the profiler of LiteRT's C library.

ai-edge-litert does not offer it in Python, but its libLiteRt exports LiteRT's C API
(https://github.com/google-ai-edge/LiteRT, litert/c/*.h). The profiler includes the operators that XNNPACK runs. Its
summary, a text, is parsed rather than its events, whose structs change with the version. ai-edge-litert 2.1 has no such
profiler; 2.2 and 2.3 have.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from contextlib import ExitStack
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

#: Least number of passes, and least time: a call is timed in whole microseconds; the mean of many calls is finer and
#: less sensitive to interruptions.
LEAST_PASSES, LEAST_SECONDS = 20, 0.2
#: No pass begins later than this: for a slow file a few passes are enough.
SECONDS = 2.0

_HANDLE = POINTER(c_void_p)
#: Functions of the C API, without their prefix, and their argument types; each returns a status, 0 for success.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "CreateEnvironment": (c_int, c_void_p, _HANDLE),
    "CreateModelFromFile": (c_void_p, c_char_p, _HANDLE),
    "CreateOptions": (_HANDLE,),
    "SetOptionsHardwareAccelerators": (c_void_p, c_int),
    "CreateOpaqueOptions": (c_char_p, c_void_p, c_void_p, _HANDLE),
    "AddOpaqueOptions": (c_void_p, c_void_p),
    "CreateCompiledModel": (c_void_p, c_void_p, c_void_p, _HANDLE),
    "GetModelSignature": (c_void_p, c_size_t, _HANDLE),
    "GetNumSignatureInputs": (c_void_p, POINTER(c_size_t)),
    "GetNumSignatureOutputs": (c_void_p, POINTER(c_size_t)),
    "GetSignatureInputTensorByIndex": (c_void_p, c_size_t, _HANDLE),
    "GetSignatureOutputTensorByIndex": (c_void_p, c_size_t, _HANDLE),
    "GetRankedTensorType": (c_void_p, c_void_p),
    "GetCompiledModelInputBufferRequirements": (c_void_p, c_size_t, c_size_t, _HANDLE),
    "GetCompiledModelOutputBufferRequirements": (c_void_p, c_size_t, c_size_t, _HANDLE),
    "CreateManagedTensorBufferFromRequirements": (c_void_p, c_void_p, c_void_p, _HANDLE),
    "ClearTensorBuffer": (c_void_p,),
    "RunCompiledModel": (c_void_p, c_size_t, c_size_t, _HANDLE, c_size_t, _HANDLE),
    "CompiledModelGetProfiler": (c_void_p, _HANDLE),
    "StartProfiler": (c_void_p,),
    "StopProfiler": (c_void_p,),
    "GetProfileSummary": (c_void_p, c_void_p, _HANDLE),
}
#: Kinds with a function that destroys them, which returns nothing.
_DESTROYED = ("Environment", "Model", "Options", "CompiledModel", "TensorBuffer")
_CPU = 1  # kLiteRtHwAcceleratorCpu
_SIGNATURE = 0

#: [node type] [start] [first] [avg ms] [%] [cdf%] [mem KB] [times called] [Name]
_ROW = re.compile(
    r"\s*(?P<kind>\S.*?)(?:\s+\d+\.\d+){3}\s+(?P<share>\S+)%\s+\S+%\s+\S+\s+(?P<calls>\d+)\s+\[.*\]:\d+\s*"
)
#: The line with the time of all nodes in all passes.
_TOTAL = re.compile(r"Timings \(microseconds\): .*\bcurr=(\d+)")


class Node(NamedTuple):
    """An operator as the runtime runs it: milliseconds and number of all its calls, in all passes together.

    If a delegate runs parts of a file, LiteRT's summary has one row for nodes of one kind with the same number in
    different parts; they are one node here, called more than once per pass.
    """

    kind: str
    name: str
    ms: float
    calls: int


class _RefusedError(Exception):
    """LiteRT returned an error or nothing."""


def parse(summary: str) -> list[Node]:
    """Return the nodes of LiteRT's `summary`, named by their index in the order in which they ran.

    LiteRT has no better names: "[Delegate]" or "[Builtin]", and a number. A node's time is computed from its share of
    all time, which has five digits: the mean of its calls is printed in whole microseconds, too coarse for a slice.
    Raises ValueError if the text is not as expected.
    """
    # The first table, without its title and the titles of its columns.
    lines = summary.partition(" Run Order ")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [_ROW.fullmatch(line) for line in lines]
    total = _TOTAL.search(summary)
    if not all(rows) or not rows or total is None:
        raise ValueError("no table of nodes in the order in which they ran, or no sum")
    # If everything took less than a microsecond, shares are "nan" or "-nan".
    percent = int(total[1]) / 1e3 / 100
    width = len(str(len(rows) - 1))
    return [
        Node(
            row["kind"].removeprefix("Delegate/"),
            f"#{place:0{width}}",
            float(row["share"]) * percent if percent else 0.0,
            int(row["calls"]),
        )
        for place, row in enumerate(rows)
        if row
    ]


def library() -> Path:
    """Return the path of the C library of the installed ai-edge-litert. On Windows there is no such file."""
    import ai_edge_litert

    return Path(ai_edge_litert.__file__).parent / f"libLiteRt.{'dylib' if sys.platform == 'darwin' else 'so'}"


def profile(path: Path, threads: int, passes: int) -> tuple[int, list[Node]] | None:
    """Run the file at `path` on zeros with `threads` threads; return the number of passes, and the nodes in order.

    It runs at least `passes` passes, LEAST_PASSES and LEAST_SECONDS, but begins none after SECONDS. None if the
    installed LiteRT has no profiler.
    """
    try:
        lite = _Library(library())
    except (OSError, AttributeError):
        return None
    try:
        return _profile(lite, path, threads, max(passes, LEAST_PASSES))
    except (_RefusedError, ValueError):
        return None


class _Library:
    """LiteRT's C API. Raises OSError if there is no library at `path`, AttributeError if it lacks a function."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._functions: dict[str, Any] = {}
        for name, types in _FUNCTIONS.items():
            self._functions[name] = getattr(library, f"LiteRt{name}")
            self._functions[name].argtypes, self._functions[name].restype = types, c_int
        for kind in _DESTROYED:
            name = f"Destroy{kind}"
            self._functions[name] = getattr(library, f"LiteRt{name}")
            self._functions[name].argtypes, self._functions[name].restype = (c_void_p,), None
        c = ctypes.CDLL(None)
        self._strdup, self.free = c.strdup, c.free
        self._strdup.argtypes, self._strdup.restype = (c_char_p,), c_void_p
        self.free.argtypes, self.free.restype = (c_void_p,), None

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises _RefusedError if its status is not 0."""
        if status := self._functions[name](*arguments):
            raise _RefusedError(f"LiteRt{name}: {status}")

    def get(self, name: str, *arguments: Any) -> c_void_p:
        """Call a function that returns a handle through its last argument; return the handle."""
        answer = c_void_p()
        self.call(name, *arguments, byref(answer))
        if not answer:
            raise _RefusedError(f"LiteRt{name}: nothing")
        return answer

    def make(self, stack: ExitStack, kind: str, name: str, *arguments: Any) -> c_void_p:
        """Call a function that creates an object of `kind`, which `stack` will destroy; return its handle."""
        made = self.get(name, *arguments)
        stack.callback(self._functions[f"Destroy{kind}"], made)
        return made

    def add_options(self, options: c_void_p, identifier: bytes, toml: bytes) -> None:
        """Add settings to `options`, which own the copy made here."""
        copy = self._strdup(toml)
        opaque = self.get("CreateOpaqueOptions", identifier, copy, ctypes.cast(self.free, c_void_p))
        self.call("AddOpaqueOptions", options, opaque)

    def count(self, name: str, thing: c_void_p) -> int:
        """Call a function that counts; return the number."""
        number = c_size_t()
        self.call(name, thing, byref(number))
        return number.value


def _profile(lite: _Library, path: Path, threads: int, passes: int) -> tuple[int, list[Node]]:
    with ExitStack() as stack:
        environment = lite.make(stack, "Environment", "CreateEnvironment", 0, None)
        model = lite.make(stack, "Model", "CreateModelFromFile", environment, os.fsencode(path))
        options = lite.make(stack, "Options", "CreateOptions")
        lite.call("SetOptionsHardwareAccelerators", options, _CPU)
        # As LrtGetOpaqueRuntimeOptionsData and LrtGetOpaqueCpuOptionsData (litert/c/options) write them; the library
        # does not export these. Without num_threads it would use one thread.
        lite.add_options(options, b"runtime_options_string", b"enable_profiling = true\n")
        lite.add_options(options, b"xnnpack", b"num_threads = %d\n" % threads)
        compiled = lite.make(stack, "CompiledModel", "CreateCompiledModel", environment, model, options)
        # First, because versions without a profiler, which may differ in the rest, fail here.
        profiler = lite.get("CompiledModelGetProfiler", compiled)
        signature = lite.get("GetModelSignature", model, _SIGNATURE)
        buffers = [_buffers(lite, stack, environment, compiled, signature, kind) for kind in ("Input", "Output")]
        counted = [argument for array in buffers for argument in (len(array), array)]

        def run() -> None:
            lite.call("RunCompiledModel", compiled, _SIGNATURE, *counted)

        run()  # warms up
        lite.call("StartProfiler", profiler)
        began, elapsed, done = perf_counter(), 0.0, 0
        while (done < passes or elapsed < LEAST_SECONDS) and (not done or elapsed < SECONDS):
            run()
            done, elapsed = done + 1, perf_counter() - began
        lite.call("StopProfiler", profiler)
        # Only once: another summary would count the same events again.
        summary = lite.get("GetProfileSummary", profiler, compiled)
        stack.callback(lite.free, summary)
        nodes = parse(ctypes.string_at(summary).decode(errors="replace"))
        # A version with a fixed buffer of events would lose the last ones.
        if any(node.calls % done for node in nodes):
            raise _RefusedError("not all events were kept")
        return done, nodes


def _buffers(
    lite: _Library, stack: ExitStack, environment: c_void_p, compiled: c_void_p, signature: c_void_p, kind: str
) -> Any:
    """Return an array of zero-filled buffers for `compiled`; `kind` is "Input" or "Output"."""
    number = lite.count(f"GetNumSignature{kind}s", signature)
    buffers = (c_void_p * number)()
    for index in range(number):
        tensor = lite.get(f"GetSignature{kind}TensorByIndex", signature, index)
        type_ = ctypes.create_string_buffer(256)  # a struct of 72 bytes, only passed on
        lite.call("GetRankedTensorType", tensor, type_)
        needs = lite.get(f"GetCompiledModel{kind}BufferRequirements", compiled, _SIGNATURE, index)
        made = "CreateManagedTensorBufferFromRequirements"
        buffer = lite.make(stack, "TensorBuffer", made, environment, type_, needs)
        # Memory is not cleared otherwise, and denormal numbers in it would take longer.
        lite.call("ClearTensorBuffer", buffer)
        buffers[index] = buffer.value
    return buffers

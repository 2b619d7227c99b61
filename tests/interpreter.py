"""Triton's interpreter, several times as fast: the same operations on the same numbers.

Almost all of its time goes to what Python does around the numbers: the language is patched for every call of a
function, types are made and compared for every operation, and integers are checked for overflow in int64.
"""

import dataclasses
import math
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import triton.language as tl
from triton.language import core
from triton.runtime import interpreter
from triton.runtime.interpreter import TensorHandle, interpreter_builder, interpreter_semantic


def hasten() -> None:
    """Patch Triton's interpreter in this process, in which nothing else may then be done with Triton."""
    _patch_once()
    _make_types_once()
    _make_handles_unchecked()
    _operate_at_once()
    interpreter_builder.options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)


def _patch_once() -> None:
    """Triton patches its language for every launch and every call of a function inside a kernel.

    Which program runs is known to the whole process: one launch at a time.
    """

    def patch_attribute(holder: Any, name: str, member: Any, _builder: Any, scope: Any) -> None:
        unchecked = getattr(member, "__wrapped__", member)

        def call(*arguments: Any, **options: Any) -> Any:
            options["_semantic"] = interpreter_semantic
            return unchecked(*arguments, **options)

        scope.set_attr(holder, name, call)

    def call(self: interpreter.InterpretedFunction, *arguments: Any, **options: Any) -> Any:
        return self.rewrite()(*arguments, **options)

    def launch(self: interpreter.GridExecutor, *arguments: Any, **options: Any) -> None:
        with lock:
            launch_unlocked(self, *arguments, **options)

    lock, launch_unlocked = threading.Lock(), interpreter.GridExecutor.__call__
    interpreter.GridExecutor.__call__ = launch
    interpreter._patch_attr = patch_attribute
    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": core}))
    interpreter._patch_lang = lambda function: SimpleNamespace(restore=lambda: None)
    interpreter.InterpretedFunction.__call__ = call


def _make_types_once() -> None:
    """Blocks of one element type and shape share one type, and tensors of one type share their shape."""
    made: dict[Any, tl.block_type] = {}
    make_block = tl.block_type.__init__

    def shape_of(sides: Sequence[int]) -> tuple[Any, tl.constexpr]:
        return core.tuple([tl.constexpr(side) for side in sides]), tl.constexpr(math.prod(sides))

    def new_block(cls: type, element_ty: tl.dtype, shape: Any) -> tl.block_type:
        sides = tuple(getattr(side, "value", side) for side in shape)
        # The block holds its element type, whose id then stays its own.
        key = id(element_ty), sides
        if key not in made:
            made[key] = block = object.__new__(cls)
            make_block(block, element_ty, list(sides))
            block.of_tensors = shape_of(sides)
        return made[key]

    def make_tensor(self: tl.tensor, handle: TensorHandle, type: tl.dtype) -> None:
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = type.of_tensors if type.is_block() else of_scalars

    of_scalars = shape_of(())
    tl.block_type.__new__ = new_block
    tl.block_type.__init__ = lambda self, element_ty, shape: None
    tl.tensor.__init__ = make_tensor


def _make_handles_unchecked() -> None:
    numpy_dtype, known = interpreter._get_np_dtype, {}

    def make_handle(self: TensorHandle, data: np.ndarray, dtype: tl.dtype, attr: Any = None) -> None:
        self.data, self.dtype, self.attr = data, dtype, {} if attr is None else attr

    def find(dtype: tl.dtype) -> np.dtype:
        if dtype.name not in known:
            known[dtype.name] = numpy_dtype(dtype)
        return known[dtype.name]

    TensorHandle.__init__ = make_handle
    interpreter._get_np_dtype = find


def _operate_at_once() -> None:
    """Operators whose operands numpy promotes and broadcasts as Triton does go to numpy at once."""
    integers, floats = ("int32", "int64"), ("fp16", "fp32", "fp64")

    def promote(x: tl.tensor, y: Any) -> tl.dtype | None:
        """The type of the result, or None where Triton has to say what is to be done."""
        own = x.dtype.name
        if type(y) is tl.tensor:
            other = y.dtype.name
            if own == other:
                return x.dtype if own in integers + floats else None
            if own in integers and other in integers:
                return x.dtype if own == "int64" else y.dtype
            return None
        if own in floats:
            return x.dtype if type(y) in (int, float) else None
        return x.dtype if own in integers and type(y) is int else None

    def typed(data: np.ndarray, dtype: tl.dtype, *operands: Any) -> tl.tensor:
        of = dtype
        for x in operands:
            if type(x) is tl.tensor and x.type.is_block():
                same = x.dtype is dtype and x.handle.data.shape == data.shape
                of = x.type if same else tl.block_type(dtype, data.shape)
                break
        return tl.tensor(TensorHandle(data, dtype), of)

    def shorten(name: str, ufunc: np.ufunc, kind: str = "sum") -> None:
        general = getattr(tl.tensor, name)

        def operation(x: tl.tensor, y: Any) -> tl.tensor:
            y = y.value if type(y) is tl.constexpr else y
            dtype = promote(x, y)
            if dtype is None or (kind == "quotient" and dtype.name not in ("fp32", "fp64")):
                return general(x, y)
            other = y.handle.data if type(y) is tl.tensor else y
            data = ufunc(other, x.handle.data) if kind == "reversed" else ufunc(x.handle.data, other)
            return typed(data, tl.int1 if kind == "comparison" else dtype, x, y)

        setattr(tl.tensor, name, operation)

    def shorten_logic(name: str, ufunc: np.ufunc) -> None:
        general = getattr(tl.tensor, name)

        def operation(x: tl.tensor, y: Any) -> tl.tensor:
            if type(y) is tl.tensor and x.dtype.name == y.dtype.name == "int1":
                return typed(ufunc(x.handle.data, y.handle.data), x.dtype, x, y)
            return general(x, y)

        setattr(tl.tensor, name, operation)

    for name, ufunc in {"add": np.add, "sub": np.subtract, "mul": np.multiply}.items():
        shorten(f"__{name}__", ufunc)
        shorten(f"__r{name}__", ufunc, "reversed")
    shorten("__truediv__", np.divide, "quotient")
    comparisons = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    for name, ufunc in (comparisons | {"eq": np.equal, "ne": np.not_equal}).items():
        shorten(f"__{name}__", ufunc, "comparison")
    shorten_logic("__and__", np.logical_and)
    shorten_logic("__or__", np.logical_or)

    sum_of, where, convert, index = tl.tensor.__add__, core.where, tl.tensor.to, tl.tensor.__getitem__

    def add(x: tl.tensor, y: Any) -> tl.tensor:
        if x.dtype.is_ptr() and type(y) is tl.tensor and y.dtype.name in integers:
            width = max(x.dtype.element_ty.primitive_bitwidth // 8, 1)
            return typed(x.handle.data + y.handle.data.astype(np.uint64) * np.uint64(width), x.dtype, x, y)
        return sum_of(x, y)

    def choose(condition: Any, x: Any, y: Any) -> tl.tensor:
        x, y = (value.value if type(value) is tl.constexpr else value for value in (x, y))
        first = x if type(x) is tl.tensor else y
        if type(condition) is tl.tensor and type(first) is tl.tensor and condition.dtype.name == "int1":
            dtype = promote(first, y if first is x else x)
            if dtype is not None:
                data = [
                    value.handle.data if type(value) is tl.tensor else first.handle.data.dtype.type(value)
                    for value in (x, y)
                ]
                return typed(np.where(condition.handle.data, *data), dtype, condition, x, y)
        return where(condition, x, y)

    def to(x: tl.tensor, dtype: Any, *how: Any, **options: Any) -> tl.tensor:
        dtype = dtype.value if type(dtype) is tl.constexpr else dtype
        if how or options or not {x.dtype.name, dtype.name} <= convertible:
            return convert(x, dtype, *how, **options)
        if x.dtype.name == dtype.name:
            return x
        return typed(x.handle.data.astype(interpreter._get_np_dtype(dtype)), dtype, x)

    def expand(x: tl.tensor, places: Any) -> tl.tensor:
        places = tuple(places) if isinstance(places, (tuple, core.tuple)) else (places,)
        if x.type.is_block() and all(place is None or place == slice(None) for place in places):
            return typed(x.handle.data[places], x.dtype, x)
        return index(x, places)

    convertible = {*integers, *floats}
    tl.tensor.__add__, tl.tensor.to, tl.tensor.__getitem__ = add, to, expand
    tl.where = core.where = choose

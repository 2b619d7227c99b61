"""What all differentiable ops share: kernels registered with torch, their derivatives, and the choice between them.

A fused op is two torch ops, `name` and `name_bwd`, defined once for each native namespace. Their flat arguments are
tensors first, batch first, then scalars. First derivatives call `name_bwd`; second and higher ones go through the
reference.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd as _BelowAutograd
from torch.autograd import Function

from .. import dispatch

NAMESPACES = {
    "cpu": "fastdraw",
    "cuda": "fastdraw_emulated" if dispatch.emulated else "fastdraw",
    "triton": "fastdraw_triton",
}
_TRITON = torch.library.Library("fastdraw_triton", "DEF")

Gradients = tuple[Tensor | None, ...]


class Native(NamedTuple):
    """How the kernels of an op are registered and differentiated; every function takes flat arguments.

    `backward` is called as (bwd, grads, saved tensors, scalars, which tensors need a gradient), where bwd calls the
    torch op `name_bwd`, and returns a gradient or None for every tensor of the forward op.
    """

    backends: frozenset[str]
    schema: str
    schema_bwd: str
    fake: Callable[..., Any]
    fake_bwd: Callable[..., Any]
    saved: int  # how many of the leading tensors the backward needs
    backward: Callable[..., Gradients]
    reference_bwd: Callable[..., Any]  # in plain, differentiable PyTorch
    # Flat arguments as the torch op takes them, every tensor with its batch first, where they do not come so.
    batch_first: Callable[..., tuple[Any, ...]] | None = None
    # How many of the last outputs are for the backward alone. It gets them after the saved tensors, and then a gradient
    # that is zero may be None.
    kept: int = 0
    batched: bool = True  # whether every tensor has the batch first, so that a mapped dimension can join it
    # Why backend "cuda" cannot serve a call with these flat arguments, or None, where that is a matter of sizes.
    refusal: Callable[[Sequence[Any]], str | None] | None = None
    # What measurements tell calls apart by, of the first argument, if it is not its dtype and first dimension.
    work: Callable[[Tensor], dispatch.Work] | None = None


class Op:
    """An op that runs on the backend that dispatch chooses.

    Args:
        name: of the op and of its torch ops.
        module: the file that holds it on every floor.
        reference: the op in plain PyTorch, on flat arguments.
        native: its kernels, if it has any.
        made_of: the op that, with products by torch, serves on the backends where this one has no kernels.
    """

    def __init__(
        self,
        name: str,
        module: str,
        reference: Callable[..., Any],
        native: Native | None = None,
        made_of: "Op | None" = None,
    ):
        self.name, self.reference, self.native, self.made_of = name, reference, native, made_of
        self.backends = native.backends if native else frozenset[str]()
        self.runs_on: frozenset[str] = self.backends | (made_of.runs_on if made_of else frozenset[str]())
        self.fused: dict[str, Callable[..., Any]] = {}
        if native is None:
            return
        if "triton" in self.backends:
            _define_triton(name, native.schema, module)
            _define_triton(f"{name}_bwd", native.schema_bwd, module)
        available = self.backends if dispatch.extension_refusal is None else self.backends & {"triton"}
        made = {namespace: _register(namespace, name, native) for namespace in {NAMESPACES[key] for key in available}}
        self.fused = {backend: made[NAMESPACES[backend]] for backend in available}

    def backend(self, first: Tensor, *others: Any) -> str:
        """The backend that serves a call with this first argument; the others matter where it has a `refusal`."""
        device, dtype, kernels = first.device, str(first.dtype).removeprefix("torch."), self.runs_on
        described = self.native.work if self.native else None
        work: dispatch.Work | None = described(first) if described else dispatch.Work(dtype, first.shape[0])
        refusals: dict[str, str] = {}
        if "cuda" in kernels and self.native is not None and self.native.refusal:
            if torch.compiler.is_compiling():
                # It can trace no question about a device: the safe choice, and what is forced refuses as it runs.
                work = None
            elif dispatch.refusal("cuda", self.name, kernels, device.type, dtype, device.index) is None:
                why = self.native.refusal((first, *others))
                refusals = {"cuda": why} if why else {}
        return dispatch.choose(self.name, kernels, device.type, dtype, device.index, work, refusals)

    def __call__(self, *arguments: Any) -> Any:
        """Run on valid flat arguments."""
        backend = self.backend(*arguments)
        if backend == "reference":
            return _in_float32(self.reference, arguments)
        if self.native is not None and self.native.batch_first is not None:
            arguments = self.native.batch_first(*arguments)
        return self.fused[backend](*arguments)


def backward_may_come(tensors: Sequence[Tensor | None]) -> bool:
    """Whether the outputs of an op on these tensors will be differentiable."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def vjp(function: Callable[..., Any], tensors: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The vector-Jacobian product of a function in plain PyTorch, itself differentiable in tensors and grads."""
    with torch.enable_grad():
        inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in tensors]
        return torch.autograd.grad(function(*inputs), inputs, grads, create_graph=True)


def _in_float32(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Compute bfloat16 and float16 in float32, as the kernels do, and round once."""
    dtype = arguments[0].dtype
    if dtype not in (torch.bfloat16, torch.float16):
        return function(*arguments)
    with torch.autocast(arguments[0].device.type, enabled=False):  # which would round the filters again
        outputs = function(*(x.float() if isinstance(x, Tensor) and x.dtype == dtype else x for x in arguments))
    return outputs.to(dtype) if isinstance(outputs, Tensor) else tuple(y.to(dtype) for y in outputs)


def _count_tensors(arguments: Sequence[Any]) -> int:
    """How many tensors lead the flat arguments; None is one that was left out."""
    return sum(isinstance(x, Tensor) or x is None for x in arguments)


def _overload(namespace: str, name: str) -> Any:
    return getattr(getattr(torch.ops, namespace), name).default


def _define_triton(name: str, schema: str, module: str) -> None:
    def launch(*arguments: Any) -> Any:
        return getattr(import_module(f"fastdraw.kernels.{module}"), name)(*arguments)

    # Rollouts capture graphs of their own, which torch.compile's must leave out.
    tags = (torch.Tag.cudagraph_unsafe,) if module == "rollout" else ()
    _TRITON.define(name + schema, tags=tags)
    for key in ("CUDA", "CPU"):
        _TRITON.impl(name, launch, key)


class _TorchOp:
    """A torch op with its derivative, called the shortest way.

    torch's own way to an autograd formula written in Python costs about three times as much as the autograd.Function
    below, and torch.func cannot differentiate it; torch.compile, in turn, needs torch's own way.
    """

    def __init__(
        self,
        overload: Any,
        fake: Callable[..., Any],
        setup: Callable[..., None],
        differentiate: Callable[..., Any],
        batched: bool,
    ):
        def forward(ctx: Any, *arguments: Any) -> Any:
            with _BelowAutograd():
                outputs = overload(*arguments)
            setup(ctx, arguments, outputs)
            return outputs

        def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
            if not batched:
                raise NotImplementedError(f"{name} cannot be mapped; fastdraw.ops has a function that can")
            return _fold_into_batch(self, info, in_dims, arguments)

        name = overload.name()
        torch.library.register_fake(name, fake)
        torch.library.register_autograd(name, differentiate, setup_context=setup)
        torch.library.register_vmap(name, vmap)

        statics = {"backward": staticmethod(differentiate)}
        eager: Any = type(f"{name} in eager mode", (Function,), {"forward": staticmethod(forward), **statics})
        statics |= {"forward": staticmethod(overload), "setup_context": staticmethod(setup), "vmap": staticmethod(vmap)}
        functional: Any = type(f"{name} under torch.func", (Function,), statics)
        self.overload, self.eager, self.functional = overload, eager.apply, functional.apply

    def __call__(self, *arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.overload(*arguments)
        if torch._C._are_functorch_transforms_active():
            return self.functional(*arguments)
        return self.eager(*arguments)


def _register(namespace: str, name: str, native: Native) -> _TorchOp:
    def save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        ctx.tensors = _count_tensors(inputs)
        kept = output[len(output) - native.kept :] if native.kept else ()
        ctx.save_for_backward(*inputs[: native.saved], *kept)
        if kept:
            ctx.mark_non_differentiable(*kept)
            ctx.set_materialize_grads(False)  # which would make zeros as large as what is kept
        ctx.scalars = inputs[ctx.tensors :]

    def first_derivative(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad[: ctx.tensors]
        grads = grads[: len(grads) - native.kept]
        found = native.backward(backward, grads, ctx.saved_tensors, ctx.scalars, needs)
        return (*found, *(None for _ in ctx.scalars))

    def save_bwd(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        tensors = _count_tensors(inputs)
        ctx.save_for_backward(*inputs[:tensors])
        ctx.scalars = inputs[tensors:]

    def second_derivative(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad(), torch.autocast(grads[0].device.type, enabled=False):
            # A view of each tensor tells apart two arguments that are the same tensor.
            tensors: list[Any] = [None if x is None else x.view_as(x) for x in ctx.saved_tensors]
            outputs = native.reference_bwd(*tensors, *ctx.scalars)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            wanted = [x for x, need in zip(tensors, needs, strict=False) if need]
            used = [(y, dy) for y, dy in zip(outputs, grads, strict=True) if y.requires_grad]
            found = iter(
                torch.autograd.grad(
                    [y for y, _ in used],
                    wanted,
                    [dy for _, dy in used],
                    create_graph=create_graph,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
        return tuple(next(found) if need else None for need in needs)

    backward = _TorchOp(
        _overload(namespace, f"{name}_bwd"), native.fake_bwd, save_bwd, second_derivative, native.batched
    )
    return _TorchOp(_overload(namespace, name), native.fake, save, first_derivative, native.batched)


def _fold_into_batch(
    op: _TorchOp, info: Any, in_dims: Sequence[int | None], arguments: Sequence[Any]
) -> tuple[Any, Any]:
    """The vmap rule of an op whose tensors are all batch first: the mapped dimension joins the batch."""

    def fold(x: Any, dim: int | None) -> Any:
        if not isinstance(x, Tensor):
            return x
        mapped = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        return mapped.flatten(0, 1)

    def unfold(x: Tensor) -> Tensor:
        return x.unflatten(0, (info.batch_size, x.shape[0] // info.batch_size))

    outputs = op(*map(fold, arguments, in_dims))
    if isinstance(outputs, Tensor):
        return unfold(outputs), 0
    return tuple(unfold(x) for x in outputs), tuple(0 for _ in outputs)

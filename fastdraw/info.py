"""What is installed, and which backend serves each op here: `python -m fastdraw.info`."""

import importlib.metadata
import platform
import sys

import torch

from . import __version__, defaults, dispatch, extension, ops
from .errors import FastdrawError
from .kernels import configs

NOT_MEASURED = "not yet measured on a GPU: the safe choice"


def report() -> str:
    """Versions, build, devices, and for every op which backend serves it here and why the others cannot."""
    return "\n".join([*_versions(), "", *_build(), "", *_devices(), "", *_backends()])


def _versions() -> list[str]:
    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    lines = [f"fastdraw {__version__}", f"python   {platform.python_version()} on {platform.platform()}"]
    lines.append(f"torch    {torch.__version__}, CUDA {torch.version.cuda or 'none'}")
    return lines + [f"{package:<8} {version(package)}" for package in ("triton", "numpy")]


def _build() -> list[str]:
    reason = extension.load()
    lines = [f"extension: {'loaded' if reason is None else reason}"]
    return lines + [f"  {key}: {value}" for key, value in extension.build_info().items()]


def _devices() -> list[str]:
    lines = [f"device cpu: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"]
    for index in range(torch.cuda.device_count()):
        at = torch.cuda.get_device_properties(index)
        lines.append(f"device cuda:{index}: {at.name}, sm_{at.major}{at.minor}, {at.total_memory >> 20} MiB")
    measured = ", ".join(sorted({f"{row.gpu} ({row.capability})" for row in defaults.table()}))
    lines.append(f"faster GPU backend of each op: {f'measured on {measured}' if measured else NOT_MEASURED}")
    return [*lines, f"tuned configurations of Triton kernels: {_tuned()}"]


def _tuned() -> str:
    path = configs.tuned_file()
    if not path.exists():
        return f"none; on a GPU, `python -m fastdraw.tune` writes {path}"
    try:
        tuned = configs.read_tuned()
    except FastdrawError as error:
        return str(error)
    here = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    used = ", ".join(sorted(here & tuned.keys()))
    return f"{path}, {f'used on {used}' if used else 'not used: for other GPUs, ' + ', '.join(tuned)}"


def _backends() -> list[str]:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    asked = dispatch.forced()
    lines = [] if asked is None else [f"backend asked for: {asked}"]
    for device in devices:
        lines.append(f"ops on {device} tensors (float32):")
        for op in ops.TABLE:
            call = op.name, op.runs_on, device, "float32"
            refusals = {name: why for name in dispatch.BACKENDS if (why := dispatch.refusal(name, *call)) is not None}
            chosen = asked or dispatch.preferred(*call)
            measured = defaults.rows(op.name) if device == "cuda" and asked is None else ()
            lines.append(f"  {op.name:<20} {'cannot run' if chosen in refusals else chosen}")
            if device == "cuda" and asked is None:
                lines[-1] += " where no row below says otherwise" if measured else f", {NOT_MEASURED}"
            lines += [f"    {row}" for row in measured]
            lines += [f"    not {name}: {why}" for name, why in refusals.items()]
            if op.made_of is not None and chosen not in {*op.backends, *refusals, "reference"}:
                lines.append(f"    products by torch, the rest by {op.made_of.name}")
        lines.append(
            "  draw_rollout, draw_generate: a loop over the ops of a step on reference, under torch.func, for a trace"
        )
    return lines


def table() -> str:
    """Which backends have kernels for which op, in Markdown, whatever can run here."""
    lines = ["| op | " + " | ".join(dispatch.BACKENDS) + " |", "|---|" + "---|" * len(dispatch.BACKENDS)]
    for op in ops.TABLE:
        marks = dict.fromkeys(dispatch.BACKENDS, "") | dict.fromkeys((*op.backends, "reference"), "yes")
        if op.made_of is not None:
            marks |= dict.fromkeys(op.made_of.backends - op.backends, f"by `{op.made_of.name}`")
        lines.append(f"| `{op.name}` | {' | '.join(marks.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        print(report())
    except FastdrawError as error:
        sys.exit(f"fastdraw: error: {error}")

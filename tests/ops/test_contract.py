"""What the contract says of every op: accuracy, derivatives, torch's transformations, memory, determinism."""

import torch

from fastdraw import reference

from .cases import DTYPES, Case, Run, every_case
from .checking import SLACK, assert_matches_reference

# A rollout is many ops one after another: rounding of one is carried through the rest.
SLACK_OF_ROLLOUTS = 16


@every_case(*DTYPES)
def test_matches_reference(run: Run, case: Case, dtype: torch.dtype) -> None:
    slack = SLACK if case.op not in ("draw_rollout", "draw_generate") else SLACK_OF_ROLLOUTS
    reference_function = getattr(reference, case.op)
    assert_matches_reference(run, reference_function, lambda dtype: case.inputs(dtype, run.device), dtype, slack)

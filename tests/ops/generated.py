"""Hypothesis where it is installed; where it is not, as on a bare GPU machine, its tests are skipped."""

from typing import Any

import pytest

try:
    import hypothesis.strategies as st
    from hypothesis import example, given
except ModuleNotFoundError:

    class _Nothing:
        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    st = _Nothing()

    def given(**_: Any) -> Any:
        return pytest.mark.skip(reason="needs hypothesis")

    def example(**_: Any) -> Any:
        return lambda function: function


__all__ = ["example", "given", "st"]

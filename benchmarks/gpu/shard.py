"""A pytest plugin: run one of several shares of the tests, and write each outcome as soon as it is there.

FASTDRAW_SHARE is `k/n`, the k-th of n shares; FASTDRAW_OUTCOMES the file, with a line of JSON for every test.
"""

import json
import os
import zlib

import pytest


def share_of(item: pytest.Item, count: int) -> int:
    """Tests of one case go to one share, which then compiles its kernels once."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return zlib.crc32(str(parameters.get("case", item.nodeid)).encode()) % count


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    number, count = map(int, os.environ["FASTDRAW_SHARE"].split("/"))
    others = [item for item in items if share_of(item, count) != number]
    items[:] = [item for item in items if share_of(item, count) == number]
    config.hook.pytest_deselected(items=others)


def pytest_runtest_setup(item: pytest.Item) -> None:
    run = item.callspec.params.get("run") if hasattr(item, "callspec") else None
    item.user_properties.append(("run", f"{run.op} {run.backend}" if run else None))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.outcome == "passed":
        return
    outcome = "error" if report.outcome == "failed" and report.when != "call" else report.outcome
    text = report.longreprtext if report.outcome == "failed" else ""
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        text = report.longrepr[2]
    row = {"test": report.nodeid, "outcome": outcome, "seconds": round(report.duration, 3), "text": text, "run": None}
    row |= report.user_properties
    with open(os.environ["FASTDRAW_OUTCOMES"], "a") as file:
        file.write(json.dumps(row) + "\n")

"""Keep a run's pictures and figures in docs/results, with the commit and without the paths of the machine.

python scripts/keep_results.py RUN NAME
"""

import json
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs" / "results"
PICTURES = ("samples.png", "strips.png", "strip.png", "generation.gif", "curves.png", "attention.png")
FIGURES = ("metrics.json", "evaluation.json")


def main(run: Path, name: str) -> None:
    target = DOCS / name
    target.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        if (run / picture).exists():
            shutil.copyfile(run / picture, target / picture)
    for figures in FIGURES:
        if (run / figures).exists():
            values = json.loads((run / figures).read_text())
            values["settings"]["data"]["root"] = None
            values["kept_at_commit"] = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
            values["kept_on"] = datetime.now(timezone.utc).date().isoformat()
            (target / figures).write_text(json.dumps(values, indent=2) + "\n")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [
        {key: row[key] for key in ("step", "nll", "kl", "loss", "seconds")} for row in rows if row["split"] == "test"
    ]
    (target / "curve.json").write_text(json.dumps(curve, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2])

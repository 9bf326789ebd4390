"""A trainer that keeps to the contract of the job folder and learns nothing: ``python -m tests.support.trainer FOLDER``.

What it does is said in the environment: TRAINER_HOLD_AT (the step before which it waits) until TRAINER_GO (a file) is there,
TRAINER_FAIL (what it says before it ends with code 1), TRAINER_STARTS (a file that gets a line ``pid first-step`` a start).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path


def main(folder: Path) -> int:
    spec = json.loads((folder / "spec.json").read_text())
    hyper, rows = spec["hyper"], (folder / "train.jsonl").read_text().splitlines()
    assert len(rows) == spec["data"]["rows"]
    steps = hyper.get("max_steps") or 5
    done = max((int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")), default=0)
    if starts := os.environ.get("TRAINER_STARTS"):
        with Path(starts).open("a") as file:
            file.write(f"{os.getpid()} {done}\n")
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    sys.stderr.write(f"training on {len(rows)} rows from step {done}\n")
    if reason := os.environ.get("TRAINER_FAIL"):
        sys.exit(reason)
    for step in range(done + 1, steps + 1):
        while not stopped and step == int(os.environ.get("TRAINER_HOLD_AT", "0")) and not Path(os.environ["TRAINER_GO"]).exists():
            time.sleep(0.01)
        if stopped:
            sys.stderr.write("stopped\n")
            return 143
        (folder / "checkpoints" / f"step-{step}").mkdir(parents=True)
        (folder / "checkpoints" / f"step-{step}" / "position.json").write_text(json.dumps({"step": step}))
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "loss": 2.0 / step, "lr": 1e-3, "tokens": 10 * step, "wall_s": step}) + "\n")
    adapter = b"GGUF" + json.dumps(hyper, sort_keys=True).encode()
    (folder / "adapter.gguf").write_bytes(adapter)
    digest = hashlib.sha256(adapter).hexdigest()
    result = {"format": 1, "adapter": "adapter.gguf", "sha256": digest, "steps": steps, "loss": 2.0 / steps}
    (folder / ".result.tmp").write_text(json.dumps(result))
    (folder / ".result.tmp").replace(folder / "result.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

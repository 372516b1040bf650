"""An engine that fails in a step takes its process with it, for another host to take over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
from actors.backend import HostSpec
from actors.host import Host
from engine.schema import ScoreTask, score_request

host = Host(HostSpec("smollm2-135m", "vllm", "fp32", options={"max_model_len": 64}))
host.load()
request = score_request([0], [[5, 6, 7]], None, ScoreTask(((1,), (2,))))
assert host.score(request).column("error").null_count == 1
print("answered", flush=True)
runner = host._backend.engine._llm.llm_engine.engine_core.engine_core.model_executor
def fails(*_, **__):
    raise RuntimeError("the device is gone")
runner.execute_model = fails
host.score(score_request([0], [[5, 6, 8]], None, ScoreTask(((1,), (2,)))))
print("survived", flush=True)
"""


def test_a_step_that_fails_ends_the_process() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 1
    assert run.stdout.split() == ["answered"]
    assert "the device is gone" in run.stderr

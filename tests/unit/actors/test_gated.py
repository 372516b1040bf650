"""A gated model: what is said, and what is never said."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub.errors import GatedRepoError

from actors.sources import resolve_model
from engine.errors import ModelError

TOKEN = "hf_averysecrettoken"


class Refused(GatedRepoError):
    """The hub's answer, without the request that it carries."""

    def __init__(self) -> None:
        Exception.__init__(self, f"401 for a request with Bearer {TOKEN}")


class Unreachable(Exception):
    """Some network library's error that repeats the request."""


def hub_that(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def model_info(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def said() -> str:
    with pytest.raises(ModelError) as error:
        resolve_model("meta-llama/a-gated-model")
    return str(error.value)


def test_without_a_token_it_says_how_to_get_access(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    hub_that(Refused(), monkeypatch)
    message = said()
    assert "gated and no token was given" in message
    assert "accept its terms at https://huggingface.co/meta-llama/a-gated-model" in message
    assert "HF_TOKEN" in message


@pytest.mark.parametrize("error", [Refused(), Unreachable(f"headers: Bearer {TOKEN}")])
def test_a_token_is_in_no_message(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    hub_that(error, monkeypatch)
    assert TOKEN not in said()

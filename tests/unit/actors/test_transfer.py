"""What a device is given is what the array holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.transfer import on_device


@pytest.mark.parametrize("dtype", [np.bool_, np.int64, np.float32])
def test_values_shape_and_type_of_any_view(dtype: type) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)[::2, 1::2]
    found = on_device(array, torch.device("cpu"))
    assert found.numpy().dtype == dtype
    np.testing.assert_array_equal(found.numpy(), array)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_it_when_it_is_read() -> None:
    array = np.arange(1 << 20)
    found = on_device(array, torch.device("cuda"))
    array[:] = 0
    np.testing.assert_array_equal(found.cpu().numpy(), np.arange(1 << 20))

"""What every test here has: fresh compiled code, and the models' names."""

import pytest
import torch


@pytest.fixture
def fresh():
    """Nothing compiled before, nothing left behind."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()

"""What tests that compile ask for."""

import pytest
import torch


@pytest.fixture
def fresh():
    """Nothing compiled before, nothing left behind."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()

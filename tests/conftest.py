"""Files of tests that take minutes come first, so that no worker is left with one at the end."""

LONGEST = (
    "test_triton_launches.py",
    "test_triton_held.py",
    "test_triton_compiled.py",
    "test_triton_compiled_further.py",
    "test_cpu_isas.py",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)

from collections import Counter

from normkit.study.compare import describe_machine, full, plan, quick


def test_the_plan_holds_every_combination_once():
    settings = full(seeds=3, workers=2)
    configs = plan(settings)
    assert len(set(configs)) == len(configs)
    kinds = Counter(config.experiment for config in configs)
    assert kinds == {"architecture": 4 * 4 * 2 * 3, "batch size": 2 * 4 * 6 * 3, "streaming": 2 * 4 * 3}


def test_norms_are_treated_alike():
    """Whatever is run with one norm is run with each: the same rates, batch sizes and seeds."""
    by_norm = {}
    for config in plan(full(seeds=2, workers=2)):
        rest = (config.experiment, config.architecture, config.seed, config.learning_rate, config.batch_size)
        by_norm.setdefault(config.norm, set()).add((*rest, config.samples))
    assert len(by_norm) == 4
    assert len({frozenset(runs) for runs in by_norm.values()}) == 1


def test_the_rate_of_the_sweep_grows_with_the_root_of_the_batch():
    rates = {c.batch_size: c.learning_rate for c in plan(full(1, 1)) if c.experiment == "batch size"}
    assert rates[256] == 2 * rates[64]
    assert rates[4] * 4 == rates[64]


def test_quick_is_marked_as_a_rehearsal():
    assert quick(2, 2).rehearsal
    assert not full(3, 2).rehearsal


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine.cores >= 1
    assert machine.cpu
    assert "cpu" in machine.backends

"""Optimizers against the papers' formulas, written again here."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import special

from fastmlp import SGD, Adagrad, Adam, AdamW, Nadam, RMSprop
from fastmlp.backends import get_backend
from fastmlp.backends.numpy_backend import UPDATE_BLOCK

# --- The papers' update rules: a new w; `memory` starts as zeros, `t` as 1 ------------------------


def sgd(o, w, g, memory, t, decay):
    """Polyak 1964; Sutskever et al. 2013, equations 1 to 4, with the lookahead at the new point."""
    if decay:
        g = g + o.weight_decay * w
    velocity = memory["v"] = o.momentum * memory["v"] - o.lr * g
    return w + (o.momentum * velocity - o.lr * g if o.nesterov else velocity)


def rmsprop(o, w, g, memory, t, decay):
    """Tieleman and Hinton 2012."""
    memory["s"] = o.rho * memory["s"] + (1 - o.rho) * g**2
    return w - o.lr * g / (memory["s"] ** 0.5 + o.epsilon)


def adagrad(o, w, g, memory, t, decay):
    """Duchi et al. 2011, the diagonal form."""
    memory["s"] = memory["s"] + g**2
    return w - o.lr * g / (memory["s"] ** 0.5 + o.epsilon)


def adam(o, w, g, memory, t, decay):
    """Kingma and Ba 2015, algorithm 1."""
    memory["m"] = o.beta1 * memory["m"] + (1 - o.beta1) * g
    memory["v"] = o.beta2 * memory["v"] + (1 - o.beta2) * g**2
    m_hat = memory["m"] / (1 - o.beta1**t)
    v_hat = memory["v"] / (1 - o.beta2**t)
    return w - o.lr * m_hat / (v_hat**0.5 + o.epsilon)


def adamw(o, w, g, memory, t, decay):
    """Loshchilov and Hutter 2019, algorithm 2, with alpha lambda for the decay, as is usual."""
    shrunk = o.lr * o.weight_decay * w if decay else 0
    return adam(o, w, g, memory, t, decay) - shrunk


def nadam(o, w, g, memory, t, decay):
    """Dozat 2016, algorithm 2, with mu_t = beta1 throughout."""
    memory["m"] = o.beta1 * memory["m"] + (1 - o.beta1) * g
    memory["v"] = o.beta2 * memory["v"] + (1 - o.beta2) * g**2
    m_hat = o.beta1 * memory["m"] / (1 - o.beta1 ** (t + 1)) + (1 - o.beta1) * g / (1 - o.beta1**t)
    v_hat = memory["v"] / (1 - o.beta2**t)
    return w - o.lr * m_hat / (v_hat**0.5 + o.epsilon)


CASES = [
    (SGD(0.1), sgd),
    (SGD(0.1, weight_decay=0.05), sgd),
    (SGD(0.1, momentum=0.9), sgd),
    (SGD(0.1, momentum=0.8, weight_decay=0.05), sgd),
    (SGD(0.1, momentum=0.9, nesterov=True), sgd),
    (SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.05), sgd),
    (RMSprop(0.01, rho=0.8, epsilon=1e-6), rmsprop),
    (Adagrad(0.05, epsilon=1e-7), adagrad),
    (Adam(0.01, beta1=0.8, beta2=0.95, epsilon=1e-6), adam),
    (AdamW(0.01, beta1=0.8, beta2=0.95, epsilon=1e-6, weight_decay=0.1), adamw),
    (Nadam(0.01, beta1=0.8, beta2=0.95, epsilon=1e-6), nadam),
    *((kind(), rule) for kind, rule in [(RMSprop, rmsprop), (Adagrad, adagrad), (Adam, adam)]),
    *((kind(), rule) for kind, rule in [(AdamW, adamw), (Nadam, nadam)]),
]
every_optimizer = pytest.mark.parametrize(
    ("optimizer", "paper"), CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
EACH_KIND = [SGD(), SGD(momentum=0.9), RMSprop(), Adagrad(), Adam(), AdamW(), Nadam()]

N = 37


class Memory(dict):
    def __missing__(self, name):
        return 0.0


def gradients(n_steps, dtype):
    """Of many sizes, as in a network, and with exact zeros."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((n_steps, N)) * 10.0 ** rng.integers(-4, 2, N)
    values[:, 5] = 0
    return values.astype(dtype)


def tolerance(dtype):
    return {"rtol": 2e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-14}


@every_optimizer
@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("n_steps", [1, 20])
def test_updates_are_the_papers(backend, dtype, optimizer, paper, decay, n_steps):
    w = np.random.default_rng(1).standard_normal(N).astype(dtype)
    states = [np.zeros(N, dtype) for _ in range(optimizer.rule.n_states)]
    expected, memory = w.astype(np.float64), Memory()
    for t, g in enumerate(gradients(n_steps, dtype), 1):
        before = g.tobytes()
        get_backend(backend).optimizer_update(optimizer, w, g, states, optimizer.lr, t, decay)
        assert g.tobytes() == before
        expected = paper(optimizer, expected, g.astype(np.float64), memory, t, decay)
    np.testing.assert_allclose(w, expected, **tolerance(dtype))


@pytest.mark.parametrize("optimizer", EACH_KIND, ids=str)
@pytest.mark.parametrize("n", [UPDATE_BLOCK - 1, UPDATE_BLOCK, 2 * UPDATE_BLOCK + 3])
def test_numpys_blocks_are_the_whole(dtype, optimizer, n):
    rng = np.random.default_rng(3)
    w, g, *states = (rng.uniform(0.1, 1, n).astype(dtype) for _ in range(2 + 2))
    states = states[: optimizer.rule.n_states]
    expected, *moments = (array.copy() for array in (w, *states))
    optimizer.update(expected, g, moments, optimizer.lr, 2, True)
    get_backend("numpy").optimizer_update(optimizer, w, g, states, optimizer.lr, 2, True)
    for actual, whole in zip((w, *states), (expected, *moments), strict=True):
        np.testing.assert_array_equal(actual, whole)


def update_with_scalars(rule, columns, w, g, states, decay):
    """The form of the rules in which `Optimizer.scalars` gives all that depends on the step.

    ``m`` and ``v`` the first and second moment where the rule has them (``v`` a sum for Adagrad):
    ``w -= shrink w``, then ``w -= (step_m m + step_g g) / (sqrt(v) + epsilon)``.
    """
    step_m, step_g, epsilon, shrink = columns
    if decay:
        g = g + rule.l2 * w
        w = w - shrink * w
    plain, momentum, nesterov, rmsprop, adagrad, _ = range(6)
    if rule.code == plain:
        return w - step_g * g
    if rule.code in (momentum, nesterov):
        v = states["v"] = rule.beta1 * states["v"] - step_g * g
        return w + (rule.beta1 * v - step_g * g if rule.code == nesterov else v)
    weight = 1 if rule.code == adagrad else 1 - rule.beta2
    states["v"] = (1 if rule.code == adagrad else rule.beta2) * states["v"] + weight * g**2
    if rule.code not in (rmsprop, adagrad):
        states["m"] = rule.beta1 * states["m"] + (1 - rule.beta1) * g
    return w - (step_m * states["m"] + step_g * g) / (np.sqrt(states["v"]) + epsilon)


@every_optimizer
@pytest.mark.parametrize("decay", [True, False])
def test_scalars_say_the_same_as_update(optimizer, paper, decay):
    n_steps = 20
    rates = np.linspace(0.5, 1.5, n_steps) * optimizer.lr
    columns = optimizer.scalars(rates, np.arange(1, n_steps + 1))
    assert columns.shape == (n_steps, 4)
    assert columns.dtype == np.float64
    by_update = np.random.default_rng(1).standard_normal(N)
    by_scalars = by_update.copy()
    moments = [np.zeros(N) for _ in range(optimizer.rule.n_states)]
    states = Memory()
    for t, (g, lr) in enumerate(zip(gradients(n_steps, np.float64), rates, strict=True), 1):
        optimizer.update(by_update, g, moments, lr, t, decay)
        by_scalars = update_with_scalars(
            optimizer.rule, columns[t - 1], by_scalars, g, states, decay
        )
    np.testing.assert_allclose(by_scalars, by_update, rtol=1e-12, atol=1e-14)


# --- In a network ---------------------------------------------------------------------------------


def sequential(net, X, labels, optimizer, paper, memories):
    """One epoch of stochastic gradient descent, sample by sample, sigmoid layers and a softmax."""
    parameters = [[W.copy(), b.copy()] for W, b in net.parameters]
    for t, (x, label) in enumerate(zip(X, labels, strict=True), 1):
        activations = [x]
        for i, (W, b) in enumerate(parameters):
            z = activations[-1] @ W + b
            last = i == len(parameters) - 1
            activations.append(special.softmax(z) if last else special.expit(z))
        delta = activations[-1] - np.eye(len(b))[label]
        for i in reversed(range(len(parameters))):
            W, b = parameters[i]
            a = activations[i]
            new = [
                paper(optimizer, value, g, memories[i, k], t, decay=k == 0)
                for k, (value, g) in enumerate([(W, np.outer(a, delta)), (b, delta)])
            ]
            delta = (W @ delta) * a * (1 - a)
            parameters[i] = new
    return parameters


@every_optimizer
@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_batches_of_one_are_the_sequential_formula(backend, make_network, optimizer, paper, n):
    """After each of the first updates, and after many."""
    net = make_network(backend, widths=(11, 8, 6, 4), hidden="sigmoid")
    rng = np.random.default_rng(2)
    X, y = rng.uniform(0, 1, (n, 11)), rng.integers(0, 4, n)
    X[:, 3] = 0
    memories = {(i, k): Memory() for i in range(3) for k in range(2)}
    expected = sequential(net, X, y, optimizer, paper, memories)
    net.fit(X, y, optimizer=optimizer, epochs=1, batch_size=1, shuffle=False)
    for values, wanted in zip(net.parameters, expected, strict=True):
        for value, numbers in zip(values, wanted, strict=True):
            np.testing.assert_allclose(value, numbers, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("optimizer", "factor"),
    [
        (SGD(0.1, weight_decay=0.5), 1 - 0.1 * 0.5),
        (AdamW(0.1, weight_decay=0.5), 1 - 0.1 * 0.5),
        (SGD(0.1), 1),
        (Adam(0.1), 1),
    ],
)
def test_weights_decay_and_biases_do_not(
    backend, dtype, make_network, batch_size, optimizer, factor
):
    """Where the gradient is zero: inputs are 0, and the targets are what the network gives."""
    net = make_network(backend, dtype, widths=(3, 2), output="identity", loss="mse")
    W, b = net.parameters[0]
    b[...] = [0.75, -2]
    before = W.copy()
    X, Y = np.zeros((8, 3)), np.tile(b, (8, 1))
    net.fit(X, Y, optimizer=optimizer, epochs=2, batch_size=batch_size)
    np.testing.assert_allclose(W, before * factor ** (2 * 8 // batch_size), rtol=1e-5)
    assert b.tolist() == [0.75, -2]


@pytest.mark.parametrize("optimizer", EACH_KIND, ids=str)
def test_a_fit_with_an_equal_optimizer_goes_on(
    backend, dtype, make_network, make_data, state_of, optimizer
):
    whole, parts = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(whole, 10)
    whole.fit(X, y, optimizer=optimizer, epochs=3, batch_size=4)
    for _ in range(3):
        parts.fit(X, y, optimizer=dataclasses.replace(optimizer), epochs=1, batch_size=4)
    assert state_of(parts) == state_of(whole)
    assert parts.optimizer_state.step == 9


def test_a_fit_with_another_optimizer_starts_afresh(backend, dtype, make_network, make_data):
    net, fresh = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(net, 10)
    net.fit(X, y, optimizer=Adam(0.01), epochs=2, batch_size=4)
    fresh.arena.flat[:] = net.arena.flat
    for each in (net, fresh):
        each.fit(X, y, optimizer=Adam(0.02), epochs=1, batch_size=4, shuffle=False)
    assert net.optimizer_state.step == 3
    assert net.arena.flat.tobytes() == fresh.arena.flat.tobytes()


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_schedules_get_the_step_from_zero_on(
    backend, dtype, make_network, make_data, batch_size, kind
):
    """Each step alone, at its rate, with the moments carried over, is the same as the schedule."""
    seen = []

    def schedule(step):
        seen.append(step)
        return 0.1 / (1 + step)

    scheduled, manual = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(scheduled, 8)
    n_steps = 8 // batch_size
    history = scheduled.fit(
        X, y, optimizer=kind(schedule), epochs=2, batch_size=batch_size, shuffle=False
    )
    assert sorted(set(seen)) == list(range(2 * n_steps))
    assert history["lr"] == [0.1 / n_steps, 0.1 / (2 * n_steps)]
    rates = []
    manual_optimizer = kind(lambda step: rates[step])
    for step in range(2 * n_steps):
        rates.append(0.1 / (1 + step))
        batch = slice(step % n_steps * batch_size, (step % n_steps + 1) * batch_size)
        manual.fit(
            X[batch],
            y[batch],
            optimizer=manual_optimizer,
            epochs=1,
            batch_size=batch_size,
            shuffle=False,
        )
    np.testing.assert_allclose(manual.arena.flat, scheduled.arena.flat, rtol=1e-6, atol=1e-7)


def test_a_rate_of_zero_changes_nothing(backend, dtype, make_network, make_data):
    net = make_network(backend, dtype)
    before = net.arena.flat.tobytes()
    net.fit(*make_data(net, 10), optimizer=SGD(0.0), epochs=1, batch_size=3)
    assert net.arena.flat.tobytes() == before


# --- Hyperparameters ------------------------------------------------------------------------------


def test_defaults_are_the_usual_ones():
    shown = [optimizer.describe() for optimizer in (SGD(), RMSprop(), Adagrad(), Adam(), AdamW())]
    moments = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "epsilon_hat": False}
    assert shown == [
        {"name": "SGD", "lr": 0.01, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
        {"name": "RMSprop", "lr": 0.001, "rho": 0.9, "epsilon": 1e-8},
        {"name": "Adagrad", "lr": 0.01, "epsilon": 1e-10},
        {"name": "Adam", "lr": 0.001, **moments},
        {"name": "AdamW", "lr": 0.001, **moments, "weight_decay": 0.01},
    ]
    assert Nadam().describe() == {"name": "Nadam", "lr": 0.001, **moments}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SGD(-0.1), ValueError, r"lr: expected a number in \[0, inf\), got -0.1"),
        (lambda: SGD(np.nan), ValueError, r"lr: expected a number in \[0, inf\), got nan"),
        (lambda: Adam(np.inf), ValueError, r"lr: expected a number in \[0, inf\), got inf"),
        (lambda: Adam("0.1"), TypeError, "lr: expected a number, got str"),
        (lambda: Adam(None), TypeError, "lr: expected a number, got NoneType"),
        (lambda: Adam(True), TypeError, "lr: expected a number, got bool"),
        (lambda: SGD(momentum=2), ValueError, r"momentum: expected a number in \[0, 1\], got 2"),
        (lambda: SGD(momentum=-0.1), ValueError, "momentum: expected"),
        (
            lambda: SGD(weight_decay=-1),
            ValueError,
            r"weight_decay: expected a number in \[0, inf\)",
        ),
        (lambda: SGD(nesterov=True), ValueError, "nesterov: expected momentum above 0"),
        (lambda: RMSprop(rho=1.0), ValueError, r"rho: expected a number in \[0, 1\), got 1.0"),
        (lambda: RMSprop(epsilon=-1e-8), ValueError, "epsilon: expected"),
        (lambda: Adagrad(epsilon="small"), TypeError, "epsilon: expected a number, got str"),
        (lambda: Adam(beta1=1.0), ValueError, r"beta1: expected a number in \[0, 1\), got 1.0"),
        (lambda: Nadam(beta2=1.5), ValueError, r"beta2: expected a number in \[0, 1\), got 1.5"),
        (lambda: AdamW(weight_decay=np.nan), ValueError, "weight_decay: expected"),
    ],
)
def test_bad_hyperparameters_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_numbers_of_numpy_are_numbers():
    assert Adam(np.float32(0.5)).lr == 0.5
    assert SGD(1).lr == 1


def test_records_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Adam().lr = 1.0


@pytest.mark.parametrize("kind", [Adam, AdamW, Nadam])
def test_epsilon_hat_is_added_before_the_correction(backend, kind):
    """Steps of lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon)."""
    g, beta1, beta2, epsilon = 0.01, 0.9, 0.999, 0.1
    optimizer = kind(0.5, epsilon=epsilon, epsilon_hat=True)
    w, states = np.ones(5), [np.zeros(5), np.zeros(5)]
    get_backend(backend).optimizer_update(optimizer, w, np.full(5, g), states, 0.5, 1, False)
    c = np.sqrt(1 - beta2)
    m_hat = beta1 * (1 - beta1) * g / (1 - beta1**2) + g if kind is Nadam else g
    expected = 1 - 0.5 * c * m_hat / (np.sqrt((1 - beta2) * g * g) + epsilon)
    np.testing.assert_allclose(w, expected)

"""What a network is made of: the checks at its making, and its description."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastmlp import Activation, Dense, Loss
from fastmlp.activations import ACTIVATIONS
from fastmlp.architecture import Architecture
from fastmlp.losses import LOSSES

OWN_ACTIVATION = Activation(np.sin, lambda dA, Z, A: dA * np.cos(Z), name="sine")
OWN_LOSS = Loss(
    lambda A, Y: np.abs(A - Y).sum(axis=1), lambda A, Y: np.sign(A - Y), name="absolute"
)


LAYERS = (Dense(8, "relu"), Dense(3, "softmax"))


def checked(n_inputs=4, layers=LAYERS, loss="mse", dtype="f4"):
    return Architecture.checked(n_inputs, layers, loss, dtype)


def test_sizes():
    architecture = checked()
    assert architecture.n_outputs == 3
    assert architecture.widths == [4, 8, 3]
    assert architecture.multiply_adds == 4 * 8 + 8 * 3
    arena = architecture.new_parameters()
    assert arena.size == 4 * 8 + 8 + 8 * 3 + 3
    assert [segment.name for segment in arena.segments] == ["0.W", "0.b", "1.W", "1.b"]
    assert [segment.decays for segment in arena.segments] == [True, False, True, False]
    assert not arena.flat.any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_inputs": 0}, ValueError, "n_inputs: expected at least 1, got 0"),
        ({"n_inputs": 4.0}, TypeError, "n_inputs: expected an integer, got float"),
        ({"n_inputs": True}, TypeError, "n_inputs: expected an integer, got bool"),
        ({"layers": []}, ValueError, "layers: expected at least one layer"),
        ({"layers": [Dense(3), 3]}, TypeError, r"layers\[1\]: expected a layer, got int"),
        ({"layers": ["relu"]}, TypeError, r"layers\[0\]: expected a layer, got str"),
        ({"loss": "cross"}, ValueError, "loss: expected one of"),
        ({"loss": 3}, TypeError, "loss: expected a name or a Loss, got int"),
        ({"dtype": "float16"}, ValueError, "dtype: expected float32 or float64, got float16"),
        ({"dtype": "int32"}, ValueError, "dtype: expected float32 or float64, got int32"),
        ({"dtype": ">f4"}, ValueError, "dtype: expected float32 or float64, got >f4"),
        (
            {"layers": [Dense(3)], "loss": "cross_entropy"},
            ValueError,
            r"loss: cross_entropy needs outputs in \[0, 1\].*'identity'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        checked(**arguments)


def test_an_own_output_is_trusted_to_give_probabilities():
    architecture = checked(layers=[Dense(3, OWN_ACTIVATION)], loss="cross_entropy")
    assert not architecture.compiled


@pytest.mark.parametrize("dtype", ["float32", np.float64, np.dtype("f4"), "f8"])
def test_spellings_of_a_dtype(dtype):
    assert checked(dtype=dtype).dtype == np.dtype(dtype)


def test_layers_may_be_any_iterable():
    assert checked(layers=iter([Dense(3), Dense(2)])).widths == [4, 3, 2]


def test_only_built_in_parts_are_compiled():
    assert checked().compiled
    assert not checked(loss=OWN_LOSS).compiled
    assert not checked(layers=[Dense(3, OWN_ACTIVATION), Dense(1)]).compiled


def test_description_round_trip():
    layers = [
        *(Dense(i + 1, name) for i, name in enumerate(ACTIVATIONS)),
        Dense(2, OWN_ACTIVATION),
    ]
    custom = {"sine": OWN_ACTIVATION, "absolute": OWN_LOSS}
    for loss in ["mse", OWN_LOSS]:
        for dtype in ["float32", "float64"]:
            architecture = checked(7, layers, loss, dtype)
            description = json.loads(json.dumps(architecture.to_dict()))
            assert Architecture.from_dict(description, custom) == architecture


def test_description_round_trip_of_options():
    architecture = checked(layers=[Dense(3, l1=0.1), Dense(2, l2=1e-300), Dense(1, l1=1, l2=2)])
    description = json.loads(json.dumps(architecture.to_dict()))
    assert Architecture.from_dict(description, {}) == architecture
    assert "l1" not in description["layers"][1]


@pytest.mark.parametrize("loss", LOSSES)
def test_description_round_trip_of_every_loss(loss):
    architecture = checked(layers=[Dense(2, "sigmoid")], loss=loss)
    assert Architecture.from_dict(architecture.to_dict(), {}) == architecture


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"layers": [Dense(3, OWN_ACTIVATION)]},
            "activation 'sine' is not known; pass it in custom=",
        ),
        ({"loss": OWN_LOSS}, "loss 'absolute' is not known; pass it in custom="),
    ],
)
def test_descriptions_of_unknown_parts_are_refused(part, message):
    with pytest.raises(ValueError, match=message):
        Architecture.from_dict(checked(**part).to_dict(), {})


def test_descriptions_of_unknown_layers_are_refused():
    description = checked().to_dict()
    description["layers"][0]["type"] = "Convolution"
    with pytest.raises(ValueError, match="layer type 'Convolution' is not known"):
        Architecture.from_dict(description, {})


def test_step_can_be_run_but_not_trained():
    checked().check_trainable()
    with pytest.raises(
        ValueError, match=r"layers\[1\]: activation 'step' has no useful derivative"
    ):
        checked(layers=[Dense(2), Dense(2, "step"), Dense(1)]).check_trainable()

"""Checks of the estimators' parameters, made in `fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from fastmlp.activations import Activation
from fastmlp.callbacks import Callback
from fastmlp.optimizers import Optimizer

__all__ = ["InvalidParameterError", "Rule", "check_parameters", "choice", "number"]

Rule = Callable[[Any], bool]


class InvalidParameterError(ValueError, TypeError):
    """A parameter that an estimator cannot work with; a ValueError and a TypeError as theirs."""


def number(low: float, high: float = np.inf, ends: str = "[)", kind: type = Real) -> Rule:
    """Numbers from `low` to `high`; `ends` says which of the two belong to it."""

    def rule(value: Any) -> bool:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
            return False
        value = float(value)  # type: ignore[arg-type]
        above = value >= low if ends[0] == "[" else value > low
        return bool(above and (value <= high if ends[1] == "]" else value < high))

    what = "an integer" if kind is Integral else "a number"
    rule.__doc__ = f"{what} in {ends[0]}{low:g}, {high:g}{ends[1]}"
    return rule


def choice(*values: str | None) -> Rule:
    def rule(value: Any) -> bool:
        return (value is None or isinstance(value, str)) and value in values

    rule.__doc__ = "one of " + ", ".join(repr(value) for value in values)
    return rule


def either(*rules: Rule) -> Rule:
    def rule(value: Any) -> bool:
        return any(rule(value) for rule in rules)

    rule.__doc__ = " or ".join(str(rule.__doc__) for rule in rules)
    return rule


def every(inner: Rule) -> Rule:
    def rule(value: Any) -> bool:
        is_sequence = hasattr(value, "__iter__") and not isinstance(value, (str, bytes, Mapping))
        return is_sequence and all(inner(item) for item in value)

    rule.__doc__ = f"a sequence, each item {inner.__doc__}"
    return rule


def instance(what: str, *kinds: type) -> Rule:
    def rule(value: Any) -> bool:
        return isinstance(value, kinds)

    rule.__doc__ = what
    return rule


def _named_activation(value: Any) -> bool:
    """a name or an Activation"""  # noqa: D403, the text of the message
    return isinstance(value, (str, Activation))


def class_weights(value: Any) -> bool:
    """None, "balanced", a dict, or a list of them, one for each output"""
    return value is None or value == "balanced" or isinstance(value, (dict, list))


_count = number(1, kind=Integral)
_flag = instance("True or False", bool, np.bool_)
_nothing = instance("None", type(None))
_callbacks = every(instance("a Callback", Callback))

SHARED: dict[str, Rule] = {
    "hidden_layer_sizes": either(_count, every(_count)),
    "activation": either(_named_activation, every(_named_activation)),
    "solver": choice("lbfgs", "sgd", "adam"),
    "alpha": number(0),
    "batch_size": either(choice("auto"), _count),
    "learning_rate": choice("constant", "invscaling", "adaptive"),
    "learning_rate_init": number(0, ends="()"),
    "power_t": number(0),
    "max_iter": _count,
    "shuffle": _flag,
    "tol": number(0),
    "verbose": either(_flag, number(0, kind=Integral)),
    "warm_start": _flag,
    "momentum": number(0, 1, "[]"),
    "nesterovs_momentum": _flag,
    "early_stopping": _flag,
    "validation_fraction": number(0, 1),
    "beta_1": number(0, 1),
    "beta_2": number(0, 1),
    "epsilon": number(0, ends="()"),
    "n_iter_no_change": either(_count, lambda value: value == np.inf),
    "max_fun": _count,
    "dropout": either(number(0, 1), every(number(0, 1))),
    "optimizer": either(_nothing, instance("an Optimizer", Optimizer)),
    "monitor": choice(None, "loss", "val_loss", "val_score"),
    "min_delta": either(_nothing, number(0)),
    "max_time": either(_nothing, number(0, ends="()")),
    "clip_value": either(_nothing, number(0, ends="()")),
    "clip_norm": either(_nothing, number(0, ends="()")),
    "n_jobs": either(_nothing, instance("an integer", Integral)),
    "callbacks": either(_nothing, _callbacks),
}


def check_parameters(estimator: Any, rules: Mapping[str, Rule]) -> None:
    """InvalidParameterError where a parameter breaks its rule."""
    for name, rule in rules.items():
        value = getattr(estimator, name)
        if not rule(value):
            raise InvalidParameterError(
                f"{name}: expected {rule.__doc__} for {type(estimator).__name__}, got {value!r}"
            )

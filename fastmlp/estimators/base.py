"""What `MLPClassifier` and `MLPRegressor` share: parameters, network, the epochs of a fit.

Semantics (order of the random draws, what counts as an improvement, when a fit stops) are those of
scikit-learn 1.9's multilayer perceptrons, so that the same parameters give the same curves. The
training is fastmlp's own loop; here is what happens before it and between its epochs.
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastmlp import config, training
from fastmlp.activations import Activation, get_activation
from fastmlp.architecture import Architecture
from fastmlp.arena import all_finite
from fastmlp.backends import get_backend
from fastmlp.backends.base import Backend, StepOptions
from fastmlp.callbacks import Callback, TimeBudget
from fastmlp.estimators.lbfgs import minimise
from fastmlp.estimators.parameters import InvalidParameterError, Rule, check_parameters
from fastmlp.estimators.sklearn_callbacks import CallbackSupportMixin, bridge
from fastmlp.feeding import RewindableOrder, Samples
from fastmlp.history import History
from fastmlp.layers import Dense, Dropout
from fastmlp.layers.base import LayerBase
from fastmlp.losses import Loss
from fastmlp.network import Network
from fastmlp.optimizers import SGD, Adam, Optimizer
from fastmlp.validation import check_inputs, check_targets, check_weights

__all__ = ["BaseMLP"]

Array = np.ndarray

# Their names of activations, and ours.
OUR_NAMES = {"logistic": "sigmoid"}
FORMATS = ("csr", "csc")
# Elements of a block of rows that is made dense at a time.
DENSE_BLOCK = 1 << 22


def dense_parameters(network: Network) -> list[tuple[Array, ...]]:
    """(W, b) of each dense layer; a layer of another kind here has none."""
    return [group for group in network.parameters if group]


def _plain_targets(y: Any, n: int) -> bool:
    """Whether `y` are numbers or strings in one dimension that validate_data would not change."""
    return (
        type(y) is np.ndarray
        and y.shape == (n,)
        and (y.dtype.kind in "iuU" or (y.dtype.kind == "f" and all_finite(y)))
    )


class Rate:
    """The learning rate, as the schedules of ``solver="sgd"`` leave it from epoch to epoch."""

    observes = False  # others change it, see `Bookkeeping.epochs_at_once`

    def __init__(self, value: float):
        self.value = float(value)

    def __call__(self, step: int) -> float:
        return self.value


class Orders(RewindableOrder):
    """The order of samples, epoch after epoch: each a permutation of the last, as theirs.

    None as `random_state` leaves `rows` as they are.
    """

    def __init__(self, rows: Array, random_state: np.random.RandomState | None, backend: Backend):
        self.rows, self.random_state, self.backend = rows, random_state, backend

    def __call__(self, rng: np.random.Generator, n: int) -> Array:
        if self.random_state is not None:
            self.rows = self.rows.copy()  # an order that was given stays
            self.backend.shuffle(self.random_state, self.rows)
        return self.rows

    @property
    def state(self) -> Any:
        r = self.random_state
        return self.rows, None if r is None else r.get_state(legacy=False)

    @state.setter
    def state(self, state: Any) -> None:
        self.rows, drawn = state
        if self.random_state is not None:
            self.random_state.set_state(drawn)


@dataclass(frozen=True)
class ValidationSet:
    """Samples that are not trained on: `y` for scikit-learn's scorers, `Y` for the network."""

    X: Any
    y: Any
    Y: Array
    weight: Array | None

    def checked(self, architecture: Architecture) -> ValidationSet:
        """In the dtype of a network."""
        X = check_inputs(self.X, architecture, "X_val")
        Y = check_targets(self.Y, architecture, len(X), "y_val")
        return ValidationSet(X, self.y, Y, check_weights(self.weight, len(X), "sample_weight_val"))


class Bookkeeping(Callback):
    """Between the epochs: curves, validation, the learning rate, whether to stop."""

    def __init__(self, estimator: BaseMLP, n_samples: int, validation: ValidationSet | None):
        self.estimator = estimator
        self.n_samples = n_samples
        self.validation = validation
        self.converged = False
        self.best: Array | None = None
        self.scorer = None
        if estimator.scoring is not None:
            self.scorer = check_scoring(estimator, scoring=estimator.scoring)

    def on_fit_begin(self, network: Network, **_: Any) -> None:
        best = self.estimator.best_validation_score_
        if best is not None and np.isfinite(best):  # a warm start goes on from the best so far
            self.best = network.arena.flat.copy()

    def epochs_at_once(self) -> int:
        """Up to the first at whose end it could stop the fit or change the rate."""
        e = self.estimator
        if self.validation is not None or e.verbose or e._schedule == "invscaling":
            return 1
        patience = min(e.n_iter_no_change, e.max_iter)  # the one may be infinite
        return max(1, patience - e._no_improvement_count + 1)

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> bool:
        e = self.estimator
        e.n_iter_ += 1
        e.t_ += self.n_samples
        e.loss_ = record["loss"]
        e.loss_curve_.append(e.loss_)
        e._say(f"Iteration {e.n_iter_}, loss = {e.loss_:.8f}")
        if self.validation is not None:
            self._validate(network, record)
        if e.early_stopping:
            self._compare_score(network)
        else:
            self._compare_loss()
        if e._schedule == "invscaling":
            e._rate.value = e.learning_rate_init / (e.t_ + 1) ** e.power_t
        if e._no_improvement_count > e.n_iter_no_change:
            self.converged = self._give_up()
        return self.converged

    def on_fit_end(self, network: Network, history: History) -> None:
        if self.best is not None:
            network.arena.flat[:] = self.best

    def _validate(self, network: Network, record: dict[str, Any]) -> None:
        e, v = self.estimator, self.validation
        assert v is not None
        scores = training.evaluate(network, v.X, v.Y, v.weight)
        record.update({f"val_{name}": value for name, value in scores.items()})
        if self.scorer is not None:
            weight = {} if v.weight is None else {"sample_weight": v.weight}
            record["val_score"] = float(self.scorer(e, v.X, v.y, **weight))
        else:
            record["val_score"] = e._validation_score(v, scores)
        score = -record["val_loss"] if e.monitor == "val_loss" else record["val_score"]
        e.validation_scores_.append(score)
        e._say(f"Validation score: {score:f}")

    def _compare_score(self, network: Network) -> None:
        e, score = self.estimator, self.estimator.validation_scores_[-1]
        worse = score < e.best_validation_score_ + e._tolerance
        e._no_improvement_count = e._no_improvement_count + 1 if worse else 0
        if score > e.best_validation_score_:
            e.best_validation_score_ = score
            self.best = network.arena.flat.copy()

    def _compare_loss(self) -> None:
        e = self.estimator
        worse = e.loss_ > e.best_loss_ - e._tolerance
        e._no_improvement_count = e._no_improvement_count + 1 if worse else 0
        e.best_loss_ = min(e.loss_, e.best_loss_)

    def _give_up(self) -> bool:
        """Whether no improvement ends the fit; the adaptive rate falls instead, down to 1e-6."""
        e = self.estimator
        what = "Validation score" if e.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={e._tolerance:f} for {e.n_iter_no_change} "
            "consecutive epochs."
        )
        if e._schedule != "adaptive":
            e._say(f"{message} Stopping.")
            return True
        if e._rate.value <= 1e-6:
            e._say(f"{message} Learning rate too small. Stopping.")
            return True
        e._rate.value /= 5
        e._say(f"{message} Setting learning rate to {e._rate.value:f}")
        e._no_improvement_count = 0
        return False


class BaseMLP(CallbackSupportMixin, BaseEstimator):
    """Base of the estimators; see `MLPClassifier` and `MLPRegressor`.

    ``network_`` is the one place of the parameters: ``coefs_`` and ``intercepts_`` are views of it.
    """

    _doc_link_module = "fastmlp"
    _rules: ClassVar[dict[str, Rule]]
    _random_state: Any
    network_: Network
    history_: History

    def _store(self, parameters: dict[str, Any]) -> None:
        """What ``locals()`` are at the beginning of ``__init__``."""
        self.__dict__.update((name, value) for name, value in parameters.items() if name != "self")

    # --- What the two estimators say differently --------------------------------------------------

    @abstractmethod
    def _learn_targets(self, y: Array, *, continuing: bool, partial: bool, classes: Any) -> None:
        """Note classes and outputs in a first fit, check them in a later one."""

    @abstractmethod
    def _encode(self, y: Array) -> Array:
        """Targets as the network takes them."""

    @abstractmethod
    def _head(self) -> tuple[int, str, Loss]:
        """Number of outputs, output activation, loss."""

    @abstractmethod
    def _validation_score(self, validation: ValidationSet, scores: dict[str, float]) -> float:
        """The score of held-out samples where no `scoring` is given."""

    def _training_weight(self, y: Array, weight: Array | None) -> Array | None:
        """Sample weights with the classes' weights in them."""
        return weight

    # --- Fitting ----------------------------------------------------------------------------------

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        validation: tuple[Any, Any, Any] = (None, None, None),
        partial: bool = False,
        classes: Any = None,
    ) -> Any:
        continuing = hasattr(self, "network_") and (self.warm_start or partial)
        if not (continuing and partial):
            check_parameters(self, self._rules)
        if self.solver == "lbfgs" and self.optimizer is not None:
            raise InvalidParameterError("optimizer: expected None beside solver='lbfgs'")
        if self.solver == "lbfgs" and np.any(self.dropout):
            raise InvalidParameterError("dropout: expected 0 beside solver='lbfgs'")
        X, y = self._validated(X, y, reset=not continuing)
        self._learn_targets(y, continuing=continuing, partial=partial, classes=classes)
        Y = self._encode(y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        weight = self._training_weight(y, weight)
        held_out = self._validation_set(*validation)
        self._draw_from_the_start(unless=continuing and not partial)
        self._prepare_network(X, continuing)
        self._partial = partial
        callbacks = list(self.callbacks or ())
        if self.max_time is not None:
            callbacks.append(TimeBudget(self.max_time))
        if not partial:
            metadata = None if sample_weight is None else {"sample_weight": sample_weight}
            callbacks += bridge(self, X=X, y=y, metadata=metadata)
        with config.limited_threads(self.n_jobs):
            if self.solver == "lbfgs":
                self._fit_lbfgs(X, Y, weight, callbacks)
            else:
                self._fit_stochastic(X, y, Y, weight, held_out, callbacks)
        return self

    def _draw_from_the_start(self, *, unless: bool) -> None:
        """A generator as theirs makes it in every call; a warm start keeps its last one."""
        if unless and hasattr(self, "_random_state"):
            return
        seed = self.random_state
        if isinstance(seed, (int, np.integer)) and getattr(self, "_seed", None) == seed:
            self._random_state.seed(seed)  # a tenth of the time that a new one takes
            return
        self._random_state = check_random_state(seed)
        self._seed = seed if isinstance(seed, (int, np.integer)) else None

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        """X as a dense float array, y as an array of one or two dimensions."""
        floats = np.float64, np.float32
        if self._plain(X, floats, reset) and _plain_targets(y, len(X)):
            if reset:
                self.n_features_in_ = X.shape[1]
                self.__dict__.pop("feature_names_in_", None)
            return X, y
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=FORMATS,
            multi_output=True,
            y_numeric=is_regressor(self),
            dtype=floats,
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1 and not issparse(y):
            y = column_or_1d(y, warn=True)
        return (X.toarray() if issparse(X) else X), y

    def _validation_set(self, X: Any, y: Any, weight: Any) -> ValidationSet | None:
        if X is None and y is None:
            return None
        if X is None or y is None:
            raise ValueError("X_val, y_val: expected both or neither")
        X, y = self._validated(X, y, reset=False)
        weight = None if weight is None else _check_sample_weight(weight, X)
        return ValidationSet(X, y, self._encode(y), self._training_weight(y, weight))

    def _prepare_network(self, X: Array, continuing: bool) -> None:
        n_outputs, output, loss = self._head()
        # SciPy's L-BFGS-B computes in float64, theirs as ours.
        dtype = np.dtype(np.float64) if self.solver == "lbfgs" else X.dtype
        if continuing:
            dtype = self.network_.architecture.dtype
        layers = self._layers(n_outputs, output)
        architecture = Architecture.checked(X.shape[1], layers, loss, dtype)
        if not continuing:
            self._start_afresh(architecture, X.dtype)
            return
        network = self._network()
        if architecture.widths != network.architecture.widths:
            raise ValueError(
                f"hidden_layer_sizes, dropout: expected layers of {network.architecture.widths} "
                f"units, as in the fit that this one goes on with, got {architecture.widths}"
            )
        if self.solver == "lbfgs" and dtype != np.float64:
            network = self.network_ = network.astype(np.float64)
            self.history_ = network.history
            self._publish()
            architecture = replace(architecture, dtype=np.dtype(np.float64))
        if architecture != network.architecture:
            network.architecture, network._predictor = architecture, None
            network.backend = get_backend(compilable=architecture.compiled)

    def _layers(self, n_outputs: int, output: str) -> list[LayerBase]:
        sizes = self.hidden_layer_sizes
        sizes = [int(n) for n in (sizes if hasattr(sizes, "__iter__") else [sizes])]
        rates = self.dropout
        rates = list(rates) if hasattr(rates, "__iter__") else [rates] * len(sizes)
        if len(rates) != len(sizes):
            raise InvalidParameterError(
                f"dropout: expected one number, or one for each of {len(sizes)} hidden layers, "
                f"got {len(rates)}"
            )
        layers: list[LayerBase] = []
        activations = self._activations(len(sizes))[:-1]
        l2 = float(self.alpha)
        for n, activation, rate in zip(sizes, activations, rates, strict=True):
            layers.append(Dense(n, activation, init="zeros", l2=l2))
            if rate:
                layers.append(Dropout(rate))
        return [*layers, Dense(n_outputs, output, init="zeros", l2=l2)]

    def _activations(self, n_hidden: int) -> list[Activation]:
        """Of each hidden layer; last, the one that the output layer's initial weights go by."""
        names = self.activation
        if isinstance(names, (str, Activation)):
            names = [names] * (n_hidden + 1)
        elif len(names) != n_hidden:
            raise InvalidParameterError(
                f"activation: expected one name, or one for each of {n_hidden} hidden layers, "
                f"got {len(names)}"
            )
        else:
            names = [*names, names[-1] if n_hidden else "identity"]
        return [get_activation(OUR_NAMES.get(a, a) if isinstance(a, str) else a) for a in names]

    def _start_afresh(self, architecture: Architecture, drawn_as: np.dtype) -> None:
        """Weights, then biases, layer by layer, as wide as Glorot and Bengio 2010 (equation 16)."""
        a = architecture
        network = Network(a.n_inputs, a.layers, loss=a.loss, dtype=a.dtype)
        groups = dense_parameters(network)
        activations = self._activations(len(groups) - 1)
        for activation, (W, b) in zip(activations, groups, strict=True):
            bound = np.sqrt((2.0 if activation.name == "sigmoid" else 6.0) / sum(W.shape))
            for parameter in (W, b):
                drawn = self._random_state.uniform(-bound, bound, parameter.shape)
                parameter[...] = drawn.astype(drawn_as)
        if self.solver != "lbfgs" and np.any(self.dropout):
            network.rng = np.random.default_rng(self._random_state.randint(1 << 31))
        self.network_ = network
        self.history_ = network.history
        self.n_layers_, self.n_outputs_ = len(groups) + 1, a.n_outputs
        output = a.layers[-1].activation.name
        self.out_activation_ = {ours: theirs for theirs, ours in OUR_NAMES.items()}.get(
            output, output
        )
        self.n_iter_ = self.t_ = 0
        self._publish()
        self._rate = Rate(self.learning_rate_init)
        self._no_improvement_count = 0
        if self.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self.best_loss_: Any = None if self.early_stopping else np.inf
            self.best_validation_score_: Any = -np.inf if self.early_stopping else None
            self.validation_scores_: Any = [] if self.early_stopping else None

    def _fit_stochastic(
        self,
        X: Array,
        y: Array,
        Y: Array,
        weight: Array | None,
        held_out: ValidationSet | None,
        callbacks: list[Callback],
    ) -> None:
        rows = np.arange(len(X), dtype=np.intp)
        if self.early_stopping and held_out is None:
            rows, held_out = self._split(X, y, Y, weight)
        batch_size = min(200, len(rows)) if self.batch_size == "auto" else self.batch_size
        if batch_size > len(rows):
            warnings.warn(
                f"batch_size: got {batch_size} for {len(rows)} samples; it is cut to {len(rows)}",
                stacklevel=4,
            )
            batch_size = len(rows)
        if held_out is not None and self.validation_scores_ is None:
            self.validation_scores_ = []
        if held_out is not None:
            held_out = held_out.checked(self.network_.architecture)
        bookkeeping = Bookkeeping(self, len(rows), held_out)
        self.n_iter_ = 0
        try:
            training.fit(
                self.network_,
                self._samples(X, Y, weight),
                None,
                optimizer=self._optimizer(),
                epochs=1 if self._partial else self.max_iter,
                batch_size=batch_size,
                shuffle=Orders(
                    rows, self._random_state if self.shuffle else None, self.network_.backend
                ),
                validation_data=None,
                metrics=(),
                sample_weight=None,
                options=StepOptions(
                    divide_penalty=True,
                    count_samples=True,
                    clip_value=np.inf if self.clip_value is None else self.clip_value,
                    clip_norm=np.inf if self.clip_norm is None else self.clip_norm,
                ),
                callbacks=[bookkeeping, *callbacks],
            )
        except training.DivergenceError as error:
            raise ValueError(f"Solver produced non-finite parameter weights: {error}") from error
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        if self.n_iter_ == self.max_iter and not (bookkeeping.converged or self._partial):
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _samples(self, X: Array, Y: Array, weight: Array | None) -> Samples:
        """What the network trains on; `X` has been looked through already."""
        architecture = self.network_.architecture
        plain = type(X) is np.ndarray and X.dtype == architecture.dtype and X.flags.aligned
        inputs = np.ascontiguousarray(X) if plain else check_inputs(X, architecture)
        return Samples(
            inputs, check_targets(Y, architecture, len(X)), check_weights(weight, len(X))
        )

    def _split(
        self, X: Array, y: Array, Y: Array, weight: Array | None
    ) -> tuple[Array, ValidationSet]:
        """Rows to train on, and the samples held out: the same ones in a warm start."""
        if self.t_ == 0:
            self._split_state = self._random_state.get_state()
            random_state = self._random_state
        else:
            random_state = np.random.RandomState()
            random_state.set_state(self._split_state)
        rows, val = train_test_split(
            np.arange(len(X), dtype=np.intp),
            random_state=random_state,
            test_size=self.validation_fraction,
            stratify=Y.ravel() if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        if len(val) < 2:
            raise ValueError(
                "The validation set is too small: validation_fraction="
                f"{self.validation_fraction} of {len(X)} samples is {len(val)}, expected 2 or more"
            )
        return rows, ValidationSet(X[val], y[val], Y[val], None if weight is None else weight[val])

    def _optimizer(self) -> Optimizer:
        if self.optimizer is not None:
            return self.optimizer
        rate = self._rate.value if self._schedule == "constant" else self._rate
        if self.solver == "adam":
            return Adam(rate, self.beta_1, self.beta_2, self.epsilon, epsilon_hat=True)
        nesterov = bool(self.nesterovs_momentum and self.momentum)
        return SGD(rate, momentum=self.momentum, nesterov=nesterov)

    def _goes_by_epochs(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError("partial_fit: expected solver 'sgd' or 'adam', got 'lbfgs'")
        if self.early_stopping:
            raise AttributeError("partial_fit does not support early_stopping=True")
        return True

    @property
    def _schedule(self) -> str:
        counts = self.solver == "sgd" and self.optimizer is None
        return self.learning_rate if counts else "constant"

    @property
    def _tolerance(self) -> float:
        return self.tol if self.min_delta is None else self.min_delta

    def _fit_lbfgs(
        self, X: Array, Y: Array, weight: Array | None, callbacks: list[Callback]
    ) -> None:
        network, history = self.network_, self.history_
        last, stopped = history.last_epoch + self.max_iter, False

        def on_iteration(loss: float, flat: Array) -> bool:
            nonlocal stopped
            record: dict[str, Any] = {"epoch": history.last_epoch + 1, "loss": loss}
            history.records.append(record)
            self._say(f"Iteration {record['epoch']}, loss = {loss:.8f}")
            if callbacks:
                network.arena.flat[:] = flat
                stops = [c.on_epoch_end(network, record) for c in callbacks]
                stopped = any(stops)
                if record["epoch"] < last and not stopped:
                    begin(record["epoch"] + 1)
            return stopped

        def begin(epoch: int) -> None:
            for callback in callbacks:
                callback.on_epoch_begin(network, epoch)

        with ExitStack() as at_end:
            for callback in callbacks:
                at_end.callback(callback.on_fit_end, network, history)
                callback.on_fit_begin(network, epochs=self.max_iter, n_samples=len(X))
            begin(history.last_epoch + 1)
            result = minimise(
                network,
                check_inputs(np.asarray(X), network.architecture),
                check_targets(Y, network.architecture, len(X)),
                check_weights(weight, len(X)),
                max_iter=self.max_iter,
                max_fun=self.max_fun,
                tol=self.tol,
                on_iteration=on_iteration,
            )
        self.n_iter_, self.loss_ = min(result.nit, self.max_iter), float(result.fun)
        if not all_finite(network.arena.flat):
            raise ValueError(
                "Solver produced non-finite parameter weights: lbfgs met a loss that is not "
                "finite; try scaled inputs"
            )
        if result.status != 0 and not stopped:
            warnings.warn(
                f"lbfgs failed to converge after {self.n_iter_} iteration(s) (status="
                f"{result.status}):\n{result.message}\n\nIncrease the number of iterations "
                f"(max_iter={self.max_iter}) or of evaluations (max_fun={self.max_fun}), or scale "
                "the data.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text)

    # --- The fitted network -----------------------------------------------------------------------

    def _publish(self) -> None:
        """Show the network's parameters under their names."""
        weights, biases = zip(*dense_parameters(self.network_), strict=True)
        self.coefs_, self.intercepts_ = list(weights), list(biases)

    def _network(self) -> Network:
        """The network, with the arrays that a user may have put in the place of its views."""
        try:
            network = self.network_
        except AttributeError:
            check_is_fitted(self)
            raise
        views = network.arena.views
        for i, (W, b) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            if W is not views[2 * i] or b is not views[2 * i + 1]:
                self._take_over(i, W, b)
        return network

    def _take_over(self, i: int, W: Array, b: Array) -> None:
        for name, arrays, given, view in (
            ("coefs_", self.coefs_, W, self.network_.arena.views[2 * i]),
            ("intercepts_", self.intercepts_, b, self.network_.arena.views[2 * i + 1]),
        ):
            if np.shape(given) != view.shape:
                raise ValueError(f"{name}[{i}]: expected shape {view.shape}, got {np.shape(given)}")
            view[...] = given
            arrays[i] = view

    def _outputs(self, X: Any, depth: int | None = None) -> Array:
        """Outputs of the network, or of its first `depth` layers, shape (n, n_units)."""
        network = self._network()
        architecture, predictor = network.architecture, network.predictor
        if depth is not None:
            dense = [i for i, layer in enumerate(architecture.layers) if isinstance(layer, Dense)]
            end = dense[depth - 1] + 1
            architecture = replace(architecture, layers=architecture.layers[:end])
            first = architecture.new_parameters()
            first = first.over(network.arena.flat[: len(first.flat)])
            predictor = network.backend.predictor(architecture, first)
        dtype = architecture.dtype
        if not self._plain(X, (dtype,)):
            X = validate_data(self, X, accept_sparse=FORMATS, dtype=dtype, reset=False)
        out = np.empty((X.shape[0], architecture.n_outputs), dtype)
        with config.limited_threads(self.n_jobs):
            if issparse(X):
                step = max(1, DENSE_BLOCK // X.shape[1])
                X = X.tocsr()
                for start in range(0, X.shape[0], step):
                    rows = slice(start, start + step)
                    predictor(X[rows].toarray(), out[rows])
            else:
                predictor(np.ascontiguousarray(X), out)
        return out

    def _plain(self, X: Any, dtypes: tuple[Any, ...], reset: bool = False) -> bool:
        """Whether validate_data would give `X` back as it is, found in a hundredth of its time."""
        return (
            type(X) is np.ndarray
            and X.dtype in dtypes
            and X.ndim == 2
            and X.size > 0
            and (reset or X.shape[1] == self.n_features_in_)
            and (reset or not hasattr(self, "feature_names_in_"))
            and all_finite(X)
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags

    # --- Pickling: parameters once, and an optimizer's state only where training goes on ----------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        for name in ("coefs_", "intercepts_"):
            state.pop(name, None)
        if "network_" in state:
            state["network_"] = copy.copy(self._network())
            if not (self.warm_start or self._partial):
                state["network_"].optimizer_state = None
                state.pop("_random_state", None)
                state.pop("_seed", None)
                state.pop("_split_state", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "network_" in state:
            self._publish()

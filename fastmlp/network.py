"""The network: an architecture, its parameters, and what one can do with them.

The work is done elsewhere: passes in `propagation`, epochs in `training`, files in `serialization`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp import propagation, serialization
from fastmlp.activations import Activation
from fastmlp.architecture import Architecture
from fastmlp.arena import Arena
from fastmlp.backends import get_backend, load_compiled
from fastmlp.backends.base import Predictor, StepOptions, Trainer
from fastmlp.callbacks import Callback
from fastmlp.custom_layer import Layer
from fastmlp.exchange import arrays
from fastmlp.exchange.c_header import c_header
from fastmlp.exchange.onnx_model import onnx_model
from fastmlp.feeding import Shuffle
from fastmlp.history import History
from fastmlp.layers import LayerBase, LayerCache, TrainingPass
from fastmlp.losses import Loss
from fastmlp.mapped import MappedRows, row_blocks
from fastmlp.metrics import Scorer
from fastmlp.optimizers import Adam, Optimizer, OptimizerState
from fastmlp.progress import progress_callbacks
from fastmlp.snapshot import Snapshot
from fastmlp.training import evaluate
from fastmlp.training import fit as train
from fastmlp.training_state import CallbackState, TrainingState
from fastmlp.validation import (
    check_finite,
    check_inputs,
    check_limit,
    check_targets,
    check_weights,
    scale_pixels,
)

__all__ = ["Network"]

Array = np.ndarray


class Network:
    """Feed-forward network of dense layers.

    Parameters
    ----------
    n_inputs : int
        Features of a sample.
    layers : sequence of Dense, Dropout, LayerNorm, BatchNorm or `Layer` of your own
        Hidden layers and, last, the output layer.
    loss : str or Loss
        "cross_entropy", "hinge" or "focal" for classes; "binary_cross_entropy" or "binary_focal"
        for outputs that are each yes or no; "mse", "mae", "huber" or "quantile" for numbers,
        "poisson" for counts, "gamma" for amounts above 0; with options `CrossEntropy`,
        `BinaryCrossEntropy`, `Focal`, `BinaryFocal`, `Huber`, `Quantile`; or one of your own.
    dtype : {"float32", "float64"}, default "float32"
    seed : int or None, default None
        Seed of the initial weights and of the order of samples. With a seed, the same calls give
        the same bits, for any number of threads.
    backend : {"auto", "compiled", "numpy"}, default "auto"
        "auto" takes the compiled core where it is there, unless ``FASTMLP_BACKEND`` says otherwise.
        Activations and losses of your own run on NumPy.

    Attributes
    ----------
    architecture : Architecture
    parameters : list of (W, b)
        Writable views; ``W`` (n_in, n_out), ``b`` (n_out,).
    rng : numpy.random.Generator
    history : History
        All epochs of all fits.
    callbacks : tuple of Callback
        Those of the fit that runs, in the order in which they are called.
    metadata : dict
        Yours; saved and loaded with the network. Anything JSON can hold.

    Raises
    ------
    TypeError, ValueError
        Where the parts do not fit together.

    Notes
    -----
    Inputs of type uint8 are taken for pixels and divided by 255; every other type keeps its values.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import Adam, Dense, Network
    >>> X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype="float32")
    >>> net = Network(2, [Dense(8, "tanh"), Dense(2, "softmax")], loss="cross_entropy", seed=0)
    >>> history = net.fit(X, [0, 1, 1, 0], optimizer=Adam(0.05), epochs=200, batch_size=4)
    >>> net.predict(X).argmax(axis=1).tolist()
    [0, 1, 1, 0]
    """

    def __init__(
        self,
        n_inputs: int,
        layers: Sequence[LayerBase],
        *,
        loss: str | Loss,
        dtype: Any = "float32",
        seed: int | None = None,
        backend: str = "auto",
    ):
        architecture = Architecture.checked(n_inputs, layers, loss, dtype)
        self._bind(architecture, architecture.new_parameters(), seed, backend)
        for layer, n_in, values in zip(
            architecture.layers, architecture.widths[:-1], self.arena.groups(), strict=True
        ):
            layer.initialize(self.rng, n_in, values)

    def _bind(self, architecture: Architecture, arena: Arena, seed: Any, backend: str) -> None:
        self.architecture = architecture
        self.arena = arena
        self.rng = np.random.default_rng(seed)
        self.backend = get_backend(backend, compilable=architecture.compiled)
        self.optimizer_state: OptimizerState | None = None
        self.history = History()
        self.callbacks: tuple[Callback, ...] = ()
        self.resumed_callbacks: list[CallbackState] = []
        self.metadata: dict[str, Any] = {}
        self._predictor: Predictor | None = None
        # What a fit leaves for the next one, which then needs no fresh memory.
        self._start_of_epoch: Snapshot | None = None
        self._trainer: tuple[Any, Trainer] | None = None

    @property
    def parameters(self) -> list[tuple[Array, ...]]:
        """Writable views ``[(W, b), ...]``, one pair a layer."""
        return self.arena.pairs()

    @property
    def predictor(self) -> Predictor:
        """The backend's forward pass, set up at the first use."""
        if self._predictor is None:
            self._predictor = self.backend.predictor(self.architecture, self.arena)
        return self._predictor

    def forward(self, X: Any, return_cache: bool = False) -> Array | tuple[Array, list[LayerCache]]:
        """Outputs, layer by layer.

        Parameters
        ----------
        X : array-like of shape (n, n_inputs)
        return_cache : bool, default False
            Also return what each layer saw.

        Returns
        -------
        A : ndarray of shape (n, n_outputs)
        cache : list of LayerCache, with `return_cache`
            Each layer's input ``X``, pre-activation ``Z`` and output ``A``.

        Raises
        ------
        TypeError, ValueError
            For inputs that are no finite numbers of that shape.
        """
        caches = self._forward(check_inputs(X, self.architecture))
        return (caches[-1].A, caches) if return_cache else caches[-1].A

    def apply(self, parameters: Sequence[tuple[Array, ...]], X: Any) -> Array:
        """Outputs with parameters of your own: a pure function, in NumPy, of both arguments.

        Autograd differentiates it, which `compute_gradient` can be held against.

        Parameters
        ----------
        parameters : sequence of (W, b)
            Shapes as `parameters`, any float type. Not checked.
        X : array-like of shape (n, n_inputs)

        Returns
        -------
        array of shape (n, n_outputs)
            Of the type that the parameters make.

        Examples
        --------
        >>> import numpy as np
        >>> from autograd import grad
        >>> from fastmlp import Dense, Network
        >>> net = Network(2, [Dense(3, "tanh"), Dense(1)], loss="mse", dtype="float64", seed=0)
        >>> X, y = np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[1.0], [2.0]])
        >>> cost = lambda parameters: ((net.apply(parameters, X) - y) ** 2).mean()
        >>> dW, db = grad(cost)(net.parameters)[0]
        >>> np.allclose(dW, net.compute_gradient(X, y)[0][0])
        True
        """
        A = scale_pixels(check_inputs(X, self.architecture), self.architecture.dtype)
        kept = [
            group[len(trained) :]
            for group, trained in zip(self.arena.groups(), self.parameters, strict=True)
        ]
        for layer, values, rest in zip(self.architecture.layers, parameters, kept, strict=True):
            A = layer.apply((*values, *rest), A)
        return A

    def predict(self, X: Any) -> Array:
        """Outputs in one fused pass.

        Parameters
        ----------
        X : array-like of shape (n, n_inputs)

        Returns
        -------
        ndarray of shape (n, n_outputs)
            Probabilities behind softmax or sigmoid; ``.argmax(axis=1)`` gives classes.
            The compiled core leaves inputs and hidden units that are 0 out of the sums, where that
            pays: 0 times a weight that is not finite counts as 0 then.

        Raises
        ------
        TypeError, ValueError
            For inputs that are no finite numbers of that shape.
        """
        few: Array | None = self.predictor.predict_few(X)
        if few is not None:
            return few
        architecture = self.architecture
        X = check_inputs(X, architecture, finite=False)
        out = np.empty((len(X), architecture.n_outputs), architecture.dtype)
        if isinstance(X, MappedRows):
            for rows in row_blocks(X):
                self.predictor(X[rows], out[rows])
        elif not self.predictor(X, out):
            check_finite(X, "X")
        return out

    def cost(self, X: Any, y: Any, sample_weight: Any = None, *, training: bool = False) -> float:
        """Mean loss.

        Parameters
        ----------
        X : array-like of shape (n, n_inputs)
        y : array-like
            Integer labels (n,) or rows of probabilities (n, n_outputs) for "cross_entropy"; 0/1 for
            "binary_cross_entropy" and floats for the other losses, (n,) or (n, n_outputs).
        sample_weight : array-like of shape (n,) or None, default None
            The mean is weighted by it.
        training : bool, default False
            What `fit` minimises, all samples in one batch: with the layers' penalties, with the
            masks of `Dropout` for seed 0, with the batch's statistics in `BatchNorm`.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            For arguments that are not of these kinds or do not fit each other.
        """
        X, Y, weight = self._checked(X, y, sample_weight)
        if not training:
            return evaluate(self, X, Y, weight)["loss"]
        loss, last = self.architecture.loss, self._forward(X, TrainingPass())[-1]
        values, activation = np.empty(len(X)), self.architecture.layers[-1].activation
        self.backend.loss_forward(loss, activation, last.A, last.Z, Y, values)
        penalty = propagation.add_penalties(self.architecture, self.arena, 1.0, None)
        return float(np.average(values, weights=weight)) + penalty

    def evaluate(self, X: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """``{"loss": ...}``, for the cross-entropies ``"accuracy"`` too; arguments as `cost`."""
        return evaluate(self, *self._checked(X, y, sample_weight))

    def compute_gradient(
        self, X: Any, y: Any, sample_weight: Any = None, *, training: bool = False
    ) -> list[tuple[Array, ...]]:
        """Gradient of the mean loss.

        Parameters
        ----------
        X, y, sample_weight, training
            As for `cost`.

        Returns
        -------
        list of (dW, db)
            Shapes as `parameters`.

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or a layer that has no derivative.
        """
        self.architecture.check_trainable()
        X, Y, weight = self._checked(X, y, sample_weight)
        scale = np.full(len(X), 1 / len(X)) if weight is None else weight / weight.sum()
        gradients = self.arena.like()
        caches = self._forward(X, TrainingPass() if training else None)
        propagation.backward(
            self.backend, self.architecture, self.arena, caches, Y, scale, gradients
        )
        if training:
            propagation.add_penalties(self.architecture, self.arena, 1.0, gradients)
        return gradients.pairs()

    def update_weights(self, deltas: Sequence[tuple[Array, ...]]) -> None:
        """Add a list of ``(dW, db)`` to the parameters, so that any optimizer can live outside.

        Parameters
        ----------
        deltas : sequence of (dW, db)
            Shapes as `parameters`.

        Raises
        ------
        ValueError
            For another number of arrays or another shape; nothing is added then.
        """
        parameters = self.parameters
        if len(deltas) != len(parameters):
            raise ValueError(
                f"deltas: expected {len(parameters)} pairs (dW, db), got {len(deltas)}"
            )
        checked = []
        for i, (values, layer_deltas) in enumerate(zip(parameters, deltas, strict=True)):
            if len(layer_deltas) != len(values):
                raise ValueError(
                    f"deltas[{i}]: expected {len(values)} arrays (dW, db), got {len(layer_deltas)}"
                )
            for value, delta in zip(values, layer_deltas, strict=True):
                delta = np.asarray(delta, dtype=value.dtype)
                if delta.shape != value.shape:
                    raise ValueError(
                        f"deltas[{i}]: expected shape {value.shape}, got {delta.shape}"
                    )
                checked.append((value, delta))
        for value, delta in checked:
            value += delta

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        optimizer: Optimizer | None = None,
        epochs: int = 10,
        batch_size: int = 64,
        shuffle: Shuffle = True,
        validation_data: tuple[Any, Any] | None = None,
        sample_weight: Any = None,
        divide_penalty: bool = False,
        class_weight: Mapping[int, float] | str | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        gradient_norm: bool = False,
        metrics: Iterable[str | Scorer] | Mapping[str, str | Scorer] = (),
        callbacks: Sequence[Callback] = (),
        verbose: int = 0,
    ) -> History:
        """Train.

        Parameters
        ----------
        X : array-like of shape (n, n_inputs), iterable or function
            Float arrays of the network's dtype and uint8 images (divided by 255 as they are read)
            are used where they lie; anything else is converted once. A large `numpy.memmap` is
            read in blocks while the block before trains, and memory stays flat; the results are
            those of the same array in memory, bit for bit. Without `y`: an iterable of chunks
            ``(X, y)`` or ``(X, y, sample_weight)`` of any sizes, or a function that returns a new
            one for each epoch. See Notes.
        y : array-like or None, default None
            Targets, as for `cost`; held in memory.
        optimizer : Optimizer or None, default None
            A fit with an optimizer equal to the last fit's goes on with its moments and step
            number, and so does None; another one starts afresh. None in a first fit is Adam().
        epochs : int, default 10
            Passes over the data.
        batch_size : int, default 64
            Samples a step; the last batch of an epoch may be smaller. 1 is stochastic gradient
            descent, sample by sample.
        shuffle : bool, "blocks" or callable, default True
            A new random order each epoch; False keeps the order given. "blocks" moves runs of 256
            samples as a whole and then mixes the samples of each 32 runs: for files that do not fit
            in memory, which are then read in long pieces. Chunks come in the order given; each is
            shuffled in itself. A function ``shuffle(rng, n)`` returns the order of an epoch, the
            samples' numbers; not all need be among them.
        validation_data : (X, y) or None, default None
            Evaluated after each epoch.
        sample_weight : array-like of shape (n,) or None, default None
            A batch's loss is the mean with these weights.
        divide_penalty : bool, default False
            Divide the layers' penalties by the sum of the batch's sample weights (its number of
            samples without weights), as scikit-learn does with ``alpha``.
        class_weight : dict, "balanced" or None, default None
            Weight of each class, times `sample_weight`, for a loss of classes: by label (a class
            that is not named has 1), or n / (n_classes * count).
        clip_value, clip_norm : float or None, default None
            Keep every element of the gradient in [-clip_value, clip_value]; then scale a gradient
            of all parameters whose Euclidean norm is above `clip_norm` back to it (Pascanu et al.
            2013, https://proceedings.mlr.press/v28/pascanu13.html). Penalties are part of it.
        gradient_norm : bool, default False
            Put "gradient_norm" into the history, the mean over an epoch's steps; with `clip_norm`
            it is there too, as it was before it was scaled back.
        metrics : sequence of str or scorer, or mapping from names to them, default ()
            scikit-learn's scorers, by name or as ``scorer(estimator, X, y)``, evaluated on the
            validation data after each epoch.
        callbacks : sequence of Callback, default ()
        verbose : {0, 1, 2}, default 0
            1 shows a progress bar in a terminal or a notebook, and elsewhere one line at the end;
            2 prints a line an epoch.

        Returns
        -------
        History
            Of this fit; the network's `history` has the earlier ones too.

        Raises
        ------
        TypeError, ValueError
            For bad arguments; the network is not changed then.
        DivergenceError
            Where the loss stops being finite; the parameters are those of the start of that epoch.

        Notes
        -----
        Chunks are read, checked and converted by a thread of their own while the samples before
        them train. Batches are put together across chunks: with ``shuffle=False`` the results are
        those of one array of all samples, bit for bit, wherever it is cut. An exception of the
        iterable, or of a chunk that does not fit (it names the chunk, counted from 0), ends the
        fit; the network is as the last finished block of batches left it.

        The compiled core takes subnormal numbers (below 1.2e-38 in float32) for 0 while it trains.
        """
        return train(
            self,
            X,
            y,
            optimizer=self._optimizer() if optimizer is None else optimizer,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            validation_data=validation_data,
            sample_weight=sample_weight,
            class_weight=class_weight,
            options=StepOptions(
                divide_penalty=divide_penalty,
                clip_value=check_limit(clip_value, "clip_value"),
                clip_norm=check_limit(clip_norm, "clip_norm"),
                gradient_norm=bool(gradient_norm),
            ),
            metrics=metrics,
            callbacks=[*callbacks, *progress_callbacks(verbose)],
        )

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        *,
        optimizer: Optimizer | None = None,
        batch_size: int = 64,
        shuffle: Shuffle = True,
        sample_weight: Any = None,
    ) -> History:
        """Go on training: one pass over `X`; arguments, result and errors as for `fit`."""
        return self.fit(
            X,
            y,
            optimizer=optimizer,
            epochs=1,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
        )

    def save(self, path: str | os.PathLike[str], *, training: bool = False) -> None:
        """Write architecture, parameters and `metadata` to a safetensors file, atomically.

        Activations and losses of your own are stored by name; give them to `load` again.

        Parameters
        ----------
        path : path
        training : bool, default False
            Also what a later fit needs to go on exactly: the optimizer with its moments, the random
            state, the history, the state of a running fit's callbacks. See `Checkpoint`.

        Raises
        ------
        OSError
            Where the file cannot be written; an old file then stays as it was.
        ValueError
            Where a file cannot hold the metadata, or a learning rate that is a plain function.
        """
        state = None
        if training:
            named = [(type(callback).__name__, callback.state()) for callback in self.callbacks]
            callbacks = [(name, state) for name, state in named if state is not None]
            state = TrainingState(self.optimizer_state, self.rng, self.history, callbacks)
        serialization.save_model(path, self.architecture, self.arena, self.metadata, state)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        custom: Mapping[str, Any] | None = None,
        seed: int | None = None,
        backend: str = "auto",
    ) -> Network:
        """The network of a file that `save` wrote. Runs no code from the file.

        With ``training=True`` saved, the next `fit` goes on exactly where the file was written:
        with the same data and arguments (no optimizer, or an equal one), the epochs that are left,
        and new callbacks of the same kinds.

        Parameters
        ----------
        path : path
        custom : mapping or None, default None
            Activations and losses of your own, by name; classes of schedules and optimizers too.
        seed : int or None, default None
            For the order of samples in a later `fit`; None goes on with a saved random state.
        backend : {"auto", "compiled", "numpy"}, default "auto"

        Raises
        ------
        OSError
            Where the file cannot be read.
        ValueError
            Where it is damaged, foreign, or of a newer version.
        """
        architecture, arena, metadata, training = serialization.load_model(path, custom or {})
        network = cls.__new__(cls)
        network._bind(architecture, arena, seed, backend)
        network.metadata = metadata
        if training is not None:
            network.optimizer_state, network.history = training.optimizer, training.history
            network.resumed_callbacks = training.callbacks
            if seed is None:
                network.rng = training.rng
        return network

    def to_onnx(self, path: str | os.PathLike[str], *, pixels: bool = False) -> None:
        """Write `predict` as an ONNX model, atomically: input ``X`` (n, n_inputs), output ``Y``.

        Needs the package onnx (``pip install "fastmlp[onnx]"``); opset 17. onnxruntime, for one,
        gives the outputs of `predict` to rounding; of gelu in float64, which it computes in
        float32, to 1e-7.

        Parameters
        ----------
        path : path
        pixels : bool, default False
            Take uint8 pixels, divided by 255 as in `predict`, instead of the network's dtype.

        Raises
        ------
        ImportError
            Without onnx.
        ValueError
            For an activation of your own, or a model of more than 2 GB, which ONNX cannot hold.
        OSError
            Where the file cannot be written; an old file then stays as it was.
        """
        content = onnx_model(self, pixels).SerializeToString()
        serialization.write_atomically(path, content)

    def to_c(
        self, path: str | os.PathLike[str], *, name: str | None = None, pixels: bool = False
    ) -> None:
        """Write `predict` as one C99 header that needs ``math.h`` alone, atomically.

        It has the weights and ``static inline void NAME_predict(const float *x, float *y)`` for one
        sample (``double`` for a float64 network), and compiles without a warning.

        Parameters
        ----------
        path : path
        name : str or None, default None
            Prefix of all its names, an identifier; None takes the file's name.
        pixels : bool, default False
            Take ``unsigned char`` pixels, divided by 255 as in `predict`.

        Raises
        ------
        ValueError
            For an activation of your own, or a name that C would not take.
        OSError
            Where the file cannot be written; an old file then stays as it was.
        """
        text = c_header(self, Path(path).stem if name is None else name, pixels)
        serialization.write_atomically(path, text.encode())

    @classmethod
    def from_torch(
        cls,
        state_dict: Mapping[str, Any],
        activations: Sequence[str | Activation],
        *,
        loss: str | Loss | None = None,
        dtype: Any = None,
        seed: int | None = None,
        backend: str = "auto",
    ) -> Network:
        """A network of the weights of PyTorch ``Linear`` layers. Does not import PyTorch.

        Parameters
        ----------
        state_dict : mapping
            ``model.state_dict()``, or arrays under such names: ``*.weight`` (n_out, n_in) and
            ``*.bias`` (n_out,) of each layer in order; no bias counts as 0.
        activations : sequence of str or Activation
            One a layer, the output's ("softmax", "identity") among them.
        loss : str, Loss or None, default None
            None takes "cross_entropy" behind softmax, "binary_cross_entropy" behind sigmoid, else
            "mse".
        dtype : {"float32", "float64"} or None, default None
            None takes float64 where a weight is float64, else float32.
        seed, backend
            As of `Network`.

        Raises
        ------
        TypeError, ValueError
            For what are no ``Linear`` layers that follow each other.

        Examples
        --------
        >>> import numpy as np
        >>> from fastmlp import Network
        >>> arrays = {"0.weight": np.ones((2, 3)), "0.bias": np.zeros(2)}
        >>> Network.from_torch(arrays, ["identity"]).predict([[1, 2, 3]]).tolist()
        [[6.0, 6.0]]
        """
        layers, its_loss, weights = arrays.from_torch(state_dict, activations)
        return cls._from_weights(layers, loss or its_loss, weights, dtype, seed, backend)

    def to_torch(self, names: Sequence[str] | None = None) -> dict[str, Array]:
        """Weights as a state dict of PyTorch ``Linear`` layers, NumPy arrays; no activations.

        ``model.load_state_dict({name: torch.from_numpy(a) for name, a in net.to_torch().items()})``

        Parameters
        ----------
        names : sequence of str or None, default None
            One a layer, as in the model ("fc1"). None takes "0", "2", "4", ..., those of a
            ``Sequential`` with activations between.

        Returns
        -------
        dict
            ``NAME.weight`` (n_out, n_in) and ``NAME.bias`` (n_out,): copies.

        Raises
        ------
        ValueError
            For another number of names, or layers that are not dense.
        """
        return arrays.to_torch(self, names)

    @classmethod
    def from_sklearn(
        cls, mlp: Any, *, dtype: Any = None, seed: int | None = None, backend: str = "auto"
    ) -> Network:
        """A network of a fitted MLPClassifier's or MLPRegressor's weights, activations and loss.

        Its outputs are those of ``predict_proba`` (for two classes one column, that of the second)
        or ``predict``. Their squared error is half of "mse".

        Parameters
        ----------
        mlp : MLPClassifier or MLPRegressor
            scikit-learn's, or anything with its fitted attributes.
        dtype : {"float32", "float64"} or None, default None
            None takes that of the weights.
        seed, backend
            As of `Network`.

        Raises
        ------
        TypeError
            For what is not fitted.
        """
        layers, loss, weights = arrays.from_sklearn(mlp)
        return cls._from_weights(layers, loss, weights, dtype, seed, backend)

    def to_sklearn(self) -> tuple[list[Array], list[Array]]:
        """``mlp.coefs_, mlp.intercepts_ = net.to_sklearn()``: copies, of dense layers alone."""
        return arrays.to_sklearn(self)

    @classmethod
    def _from_weights(
        cls,
        layers: Sequence[LayerBase],
        loss: str | Loss,
        weights: Sequence[tuple[Array, ...]],
        dtype: Any,
        seed: int | None,
        backend: str,
    ) -> Network:
        values = [array for pair in weights for array in pair]
        if not all(np.isfinite(array).all() for array in values):
            raise ValueError("weights: expected finite numbers")
        if dtype is None:
            dtype = "float64" if np.result_type(*values) == np.float64 else "float32"
        n_inputs = weights[0][0].shape[0]
        network = cls(n_inputs, layers, loss=loss, dtype=dtype, seed=seed, backend=backend)
        for mine, theirs in zip(network.parameters, weights, strict=True):
            for view, array in zip(mine, theirs, strict=True):
                view[...] = array
        return network

    def astype(self, dtype: Any) -> Network:
        """A copy with the same parameters in another dtype, on the same backend."""
        a = self.architecture
        architecture = Architecture.checked(a.n_inputs, a.layers, a.loss, dtype)
        network = type(self).__new__(type(self))
        network._bind(architecture, architecture.new_parameters(), None, self.backend.name)
        for mine, theirs in zip(network.arena.views, self.arena.views, strict=True):
            mine[...] = theirs
        network.metadata = dict(self.metadata)
        return network

    def __repr__(self) -> str:
        a = self.architecture
        lines = [f"Network({a.n_inputs} inputs, {a.loss}, {a.dtype}, {self.backend.name} backend)"]
        width = max(8, *(1 + len(type(layer).__name__) for layer in a.layers))
        for layer, values, n_in, n_out in zip(
            a.layers, self.parameters, a.widths[:-1], a.widths[1:], strict=True
        ):
            name = layer.name if isinstance(layer, Layer) else layer.activation.name
            count = sum(value.size for value in values)
            kind, shape = type(layer).__name__, f"{n_in} -> {n_out}"
            lines.append(f"  {kind:<{width}}{shape:<16}{name:<12}{count:>12,}")
        lines.append(f"  {'parameters':<{width + 28}}{self.arena.size:>12,}")
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, Any]:
        parts = {"backend": self.backend.name, "callbacks": ()}
        return {
            **self.__dict__,
            **parts,
            **dict.fromkeys(("_predictor", "_start_of_epoch", "_trainer")),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        missing = state["backend"] == "compiled" and load_compiled() is None
        name = "auto" if missing else state["backend"]
        self.backend = get_backend(name, compilable=self.architecture.compiled)

    def _optimizer(self) -> Optimizer:
        return Adam() if self.optimizer_state is None else self.optimizer_state.optimizer

    def _forward(
        self, X: Array | MappedRows, training: TrainingPass | None = None
    ) -> list[LayerCache]:
        X = scale_pixels(X, self.architecture.dtype)
        return propagation.forward(self.backend, self.architecture, self.arena, X, training)

    def _checked(
        self, X: Any, y: Any, weight: Any
    ) -> tuple[Array | MappedRows, Array, Array | None]:
        X = check_inputs(X, self.architecture)
        n = len(X)
        return X, check_targets(y, self.architecture, n), check_weights(weight, n)

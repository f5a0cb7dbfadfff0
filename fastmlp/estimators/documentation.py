"""What the docstrings of the estimators have in common."""

from __future__ import annotations

__all__ = ["ATTRIBUTES", "PARAMETERS", "STOPPING"]

PARAMETERS = """\
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer; empty for a linear model.
    activation : str, Activation or sequence of them, default "relu"
        Of all hidden layers, or one for each: "identity", "logistic", "tanh", "relu", any other of
        the library's, or one of your own.
    solver : {"lbfgs", "sgd", "adam"}, default "adam"
    alpha : float, default 0.0001
        Strength of the L2 penalty ``alpha / (2 w) sum W^2``, `w` the batch's sum of weights.
    batch_size : int or "auto", default "auto"
        "auto" is ``min(200, n)``. Not for "lbfgs".
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        With ``solver="sgd"``: "invscaling" divides the first rate by ``(t + 1)^power_t`` after `t`
        samples; "adaptive" divides it by 5 where otherwise training would stop.
    learning_rate_init : float, default 0.001
    power_t : float, default 0.5
    max_iter : int, default 200
        Epochs, iterations of "lbfgs".
    shuffle : bool, default True
    random_state : int, RandomState or None, default None
        Initial weights, held-out samples, order of samples.
    tol : float, default 1e-4
        Smaller changes of loss or score are no improvement; for "lbfgs" the largest element of the
        gradient that counts as none.
    verbose : bool or int, default False
    warm_start : bool, default False
        `fit` goes on from the last one: parameters, optimizer, learning rate, random numbers.
    momentum : float in [0, 1], default 0.9
    nesterovs_momentum : bool, default True
    early_stopping : bool, default False
        Hold out samples, stop where `monitor` rests on them, and end with the best parameters.
    validation_fraction : float in [0, 1), default 0.1
    beta_1, beta_2 : float in [0, 1), default 0.9 and 0.999
    epsilon : float, default 1e-8
        Of Adam.
    n_iter_no_change : int or inf, default 10
        Epochs without an improvement after which training stops.
    max_fun : int, default 15000
        Evaluations of the loss by "lbfgs"."""

STOPPING = """\
    dropout : float in [0, 1) or sequence of float, default 0
        Share of the units left out in training: of all hidden layers, or one for each. Not for
        "lbfgs".
    optimizer : Optimizer or None, default None
        One of the library's, with its own learning rate, in the place of `solver`.
    monitor : {"val_score", "val_loss"} or None, default None
        What early stopping watches; None is "val_score".
    scoring : str, callable or None, default None
        scikit-learn's scorer for "val_score"; None is `score`.
    min_delta : float or None, default None
        In the place of `tol`.
    max_time : float or None, default None
        Seconds after which training stops, at the end of an epoch.
    clip_value, clip_norm : float or None, default None
        Largest element, largest Euclidean norm of a batch's gradient. Not for "lbfgs".
    n_jobs : int or None, default None
        Most threads of a fit or prediction; -1 for all CPUs. None leaves the choice to
        `set_num_threads` and the work.
    callbacks : sequence of Callback or None, default None
        The library's; scikit-learn's are set by `set_callbacks`."""

ATTRIBUTES = """\
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of each layer: writable views of ``network_``.
    network_ : Network
        The trained network: saves itself, exports itself, computes gradients.
    history_ : History
        Every recorded quantity, epoch by epoch.
    loss_ : float
        The last epoch's.
    best_loss_ : float or None
        Smallest loss; None with early stopping. Not with "lbfgs", as the next three.
    loss_curve_ : list of float
        Loss of each epoch, penalty included.
    validation_scores_ : list of float or None
        What early stopping watched, larger is better; None without samples held out.
    best_validation_score_ : float or None
    n_iter_ : int
        Epochs of the last fit.
    t_ : int
        Samples trained on.
    n_features_in_, n_layers_, n_outputs_ : int
        `n_layers_` counts the inputs as one.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where all names of the columns are strings.
    out_activation_ : str"""

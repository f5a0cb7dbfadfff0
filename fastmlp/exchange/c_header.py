"""A network as one C99 header: weights and a function, nothing but math.h beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.activations import ELU_ALPHA, LEAKY_RELU_SLOPE, SELU_ALPHA, SELU_SCALE
from fastmlp.exchange.steps import Activate, Affine, Normalise, Scale, prediction_steps

if TYPE_CHECKING:
    from fastmlp.network import Network

__all__ = ["c_header"]

Array = np.ndarray

# T is the type, {f} the suffix of its functions and numbers (f for float), {p} the header's name.
HEADER = """\
/* {title}; written by fastmlp. C99, needs math.h alone (link with -lm).
 *
 *   {p}_predict(x, y): y[{P}_N_OUTPUTS] for one sample x[{P}_N_INPUTS]{pixels}.
 *
 * It has no state and allocates nothing; at most {stack} bytes of stack. */
#ifndef {P}_H
#define {P}_H

#include <math.h>
#include <stddef.h>

#define {P}_N_INPUTS {n_inputs}
#define {P}_N_OUTPUTS {n_outputs}

"""

AFFINE = """\
/* z = x W + b; W is (n_in, n_out), row by row */
static inline void {p}_affine(size_t n_in, size_t n_out, const {T} *x, const {T} *W, const {T} *b,
                              {T} *z) {{
  for (size_t j = 0; j < n_out; j++) z[j] = b[j];
  for (size_t i = 0; i < n_in; i++)
    for (size_t j = 0; j < n_out; j++) z[j] += x[i] * W[i * n_out + j];
}}

"""

ELEMENTWISE = """\
static inline void {p}_{name}(size_t n, {T} *z) {{
  for (size_t j = 0; j < n; j++) z[j] = {formula};
}}

"""

SCALE = """\
/* z = factor z + shift, element by element */
static inline void {p}_scale(size_t n, const {T} *factor, const {T} *shift, {T} *z) {{
  for (size_t j = 0; j < n; j++) z[j] = factor[j] * z[j] + shift[j];
}}

"""

NORMALISE = """\
/* z = (z - mean) / sqrt(variance + epsilon) */
static inline void {p}_normalise(size_t n, {T} epsilon, {T} *z) {{
  {T} mean = 0, variance = 0;
  for (size_t j = 0; j < n; j++) mean += z[j];
  mean /= ({T})n;
  for (size_t j = 0; j < n; j++) variance += (z[j] - mean) * (z[j] - mean);
  variance /= ({T})n;
  for (size_t j = 0; j < n; j++) z[j] = (z[j] - mean) / sqrt{f}(variance + epsilon);
}}

"""

# Of z[j], each as in fastmlp/activations.py.
FORMULAS = {
    "relu": "z[j] > 0 ? z[j] : 0",
    "leaky_relu": "z[j] > 0 ? z[j] : {slope} * z[j]",
    "elu": "z[j] > 0 ? z[j] : {elu} * expm1{f}(z[j])",
    "selu": "{scale} * (z[j] > 0 ? z[j] : {selu} * expm1{f}(z[j]))",
    "sigmoid": "1 / (1 + exp{f}(-z[j]))",
    "tanh": "tanh{f}(z[j])",
    "softplus": "(z[j] > 0 ? z[j] : 0) + log1p{f}(exp{f}(-fabs{f}(z[j])))",
    "gelu": "{half} * z[j] * erfc{f}(-{root} * z[j])",
    "silu": "z[j] / (1 + exp{f}(-z[j]))",
    "step": "z[j] >= 0 ? 1 : 0",
    "exp": "exp{f}(z[j])",
}

ROWS = {
    "softmax": """\
static inline void {p}_softmax(size_t n, {T} *z) {{
  {T} top = z[0], sum = 0;
  for (size_t j = 1; j < n; j++)
    if (z[j] > top) top = z[j];
  for (size_t j = 0; j < n; j++) sum += z[j] = exp{f}(z[j] - top);
  for (size_t j = 0; j < n; j++) z[j] /= sum;
}}

""",
    "increasing": """\
static inline void {p}_increasing(size_t n, {T} *z) {{
  for (size_t j = 1; j < n; j++)
    z[j] = z[j - 1] + (z[j] > 0 ? z[j] : 0) + log1p{f}(exp{f}(-fabs{f}(z[j])));
}}

""",
}


def c_header(network: Network, name: str, pixels: bool) -> str:
    """Text of the header; see `Network.to_c`."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"name: expected a C identifier, got {name!r}")
    architecture = network.architecture
    single = architecture.dtype == np.float32
    T, f, digits = ("float", "f", 8) if single else ("double", "", 16)
    steps = prediction_steps(network, "C")
    widths = [step.W.shape[1] for step in steps if isinstance(step, Affine)]
    # The last layer writes y; the others take turns in two buffers.
    widest = max([1, *widths[:-1]])
    copied = pixels or not isinstance(steps[0], Affine)
    if copied:
        widest = max(widest, architecture.n_inputs)

    def number(value: float) -> str:
        return f"{value:.{digits}e}{f}"

    fields = {
        "p": name,
        "P": name.upper(),
        "T": T,
        "f": f,
        "half": number(0.5),
        "slope": number(LEAKY_RELU_SLOPE),
        "elu": number(ELU_ALPHA),
        "root": number(0.5**0.5),
        "selu": number(SELU_ALPHA),
        "scale": number(SELU_SCALE),
        "n_inputs": architecture.n_inputs,
        "n_outputs": architecture.n_outputs,
        "title": " -> ".join(map(str, [architecture.n_inputs, *widths])),
        "stack": 2 * widest * architecture.dtype.itemsize,
        "pixels": " of pixels, 0 to 255" if pixels else "",
    }
    parts, calls = [HEADER.format(**fields), AFFINE.format(**fields)], []
    known = {"identity"}
    source, n_affine, n_scales = "x", 0, 0
    if copied:
        value = f"({T})x[i] * {number(1 / 255)}" if pixels else "x[i]"
        calls.append(f"  for (size_t i = 0; i < {architecture.n_inputs}; i++)")
        calls.append(f"    even[i] = {value};")
        source = "even"
    for step in steps:
        match step:
            case Affine(W, b):
                target = "y" if n_affine == len(widths) - 1 else "odd"
                if target == "odd" and source == "odd":
                    target = "even"
                for letter, values in (("W", W), ("b", b)):
                    parts.append(_array(f"{name}_{letter}{n_affine}", T, values, number))
                calls.append(
                    f"  {name}_affine({W.shape[0]}, {W.shape[1]}, {source}, {name}_W{n_affine}, "
                    f"{name}_b{n_affine}, {target});"
                )
                source, n_affine = target, n_affine + 1
            case Scale(factor, shift):
                if n_scales == 0:
                    parts.append(SCALE.format(**fields))
                arrays = f"{name}_factor{n_scales}", f"{name}_shift{n_scales}"
                for array, values in zip(arrays, (factor, shift), strict=True):
                    parts.append(_array(array, T, values, number))
                n = len(factor)
                calls.append(f"  {name}_scale({n}, {arrays[0]}, {arrays[1]}, {source});")
                n_scales += 1
            case Normalise(epsilon, n):
                if "normalise" not in known:
                    known.add("normalise")
                    parts.append(NORMALISE.format(**fields))
                calls.append(f"  {name}_normalise({n}, {number(epsilon)}, {source});")
            case Activate(activation, n):
                if activation not in known:
                    known.add(activation)
                    text = ROWS.get(activation, ELEMENTWISE)
                    formula = FORMULAS.get(activation, "").format(**fields)
                    parts.append(text.format(name=activation, formula=formula, **fields))
                if activation != "identity":
                    calls.append(f"  {name}_{activation}({n}, {source});")
    if source != "y":
        calls.append(f"  for (size_t i = 0; i < {architecture.n_outputs}; i++) y[i] = {source}[i];")
    buffers = [word for word in ("even", "odd") if any(word in call for call in calls)]
    x_type = "unsigned char" if pixels else T
    parts.append(f"static inline void {name}_predict(const {x_type} *x, {T} *y) {{\n")
    parts += [f"  {T} {buffer}[{widest}];\n" for buffer in buffers]
    parts += [f"{call}\n" for call in calls]
    parts.append("}\n\n#endif\n")
    return "".join(parts)


def _array(name: str, T: str, values: Array, number: Callable[[float], str]) -> str:
    numbers = [number(value) for value in values.ravel().tolist()]
    lines = [", ".join(numbers[i : i + 6]) for i in range(0, len(numbers), 6)]
    return f"static const {T} {name}[{values.size}] = {{\n  " + ",\n  ".join(lines) + "};\n\n"

# %% [markdown]
# # The Jacobian of softmax
#
# After the first homework of the deep learning course at New York University (fall 2021).
#
# Softmax makes probabilities of any numbers: `y_i = exp(z_i) / S` with `S = sum_k exp(z_k)`. How
# does each `y_i` move with each `z_j`? The logarithm makes it short:
#
# $$\log y_i = z_i - \log S, \qquad
# \frac{\partial \log y_i}{\partial z_j} = \delta_{ij} - \frac{e^{z_j}}{S} = \delta_{ij} - y_j .$$
#
# And since $\partial \log y_i = \partial y_i / y_i$,
#
# $$J_{ij} = \frac{\partial y_i}{\partial z_j} = y_i\,(\delta_{ij} - y_j), \qquad
# J = \mathrm{diag}(y) - y\,y^T .$$

# %%
import matplotlib.pyplot as plt
import numpy as np

from fastmlp.activations import ACTIVATIONS, softmax_jacobian
from fastmlp.losses import LOSSES

softmax, cross_entropy = ACTIVATIONS["softmax"], LOSSES["cross_entropy"]
rng = np.random.default_rng(0)

# %% [markdown]
# ## One Jacobian a sample
#
# `softmax_jacobian` takes the outputs, a batch of them, and gives a matrix for each.

# %%
Z = rng.normal(0, 1.5, (4, 5))
Y = softmax.forward(Z)
J = softmax_jacobian(Y)
print("Y", Y.shape, "-> J", J.shape)
print("y of the first sample:", Y[0].round(3))
print(J[0].round(3))

# %% [markdown]
# ## Checked by central differences
#
# Move each `z_j` by a small step up and down. The error of the difference falls with the square of
# the step until rounding takes over, and is smallest near the cube root of the rounding unit, 6e-6.


# %%
def numeric_jacobian(Z, step):
    columns = []
    for j in range(Z.shape[1]):
        shift = step * np.eye(Z.shape[1])[j]
        columns.append((softmax.forward(Z + shift) - softmax.forward(Z - shift)) / (2 * step))
    return np.stack(columns, axis=2)


steps = np.logspace(-11, -1, 41)
errors = [np.abs(numeric_jacobian(Z, step) - J).max() for step in steps]
print(f"\nsmallest difference {min(errors):.1e}, at step {steps[np.argmin(errors)]:.1e}")

# %% [markdown]
# ## What the formula says
#
# - J is symmetric, and its rows sum to 0: the outputs always sum to 1, and adding a constant to all
#   of `z` changes nothing. So J has no inverse.
# - Nothing needs the whole matrix. The gradient `dz = J^T dy` is `y (dy - sum_i dy_i y_i)`: two
#   passes over a row instead of n^2 products. That is the library's `backward`.
# - Behind it the cross-entropy with target `t` gives `dy = -t / y`, and almost everything cancels:
#   `dz = y - t`. That is what a network computes when softmax meets cross-entropy.

# %%
targets = np.eye(5)[[0, 2, 1, 4]]
dY = cross_entropy.gradient(Y, targets)
through_matrix = np.einsum("nij,ni->nj", J, dY)
print(f"symmetric: {np.array_equal(J, J.transpose(0, 2, 1))},", end=" ")
print(f"largest sum of a row {np.abs(J.sum(axis=2)).max():.1e},", end=" ")
print(f"smallest eigenvalue {np.abs(np.linalg.eigvalsh(J)).min():.1e}")
fast = np.abs(softmax.backward(dY, Z, Y) - through_matrix).max()
fused = np.abs((Y - targets) - through_matrix).max()
print(f"J^T dy against backward: {fast:.1e}, against y - t: {fused:.1e}")

# %%
plt.style.use("tableau-colorblind10")
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
image = left.imshow(J[0], cmap="RdBu_r", vmin=-0.4, vmax=0.4)
for (i, j), value in np.ndenumerate(J[0]):
    left.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8)
left.set(xlabel="j, moved", ylabel="i, moves", title=r"$J_{ij}$ of the first sample")
figure.colorbar(image, ax=left)
right.loglog(steps, errors)
right.set(xlabel="step of the difference", ylabel="largest error", title="central differences")
figure.savefig("softmax_jacobian.png")

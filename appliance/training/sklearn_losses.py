"""The slopes of the losses that scikit-learn's SGD models know: what a step of another optimizer follows.

Source: scikit-learn, User Guide, 1.5.8 Mathematical formulation (Stochastic Gradient Descent).
"""

from __future__ import annotations

import numpy as np

from appliance.training.plan import Array


def slopes(loss: str, output: Array, truth: Array, epsilon: float) -> Array:
    """The derivative of each sample's loss by the model's output.

    Args:
        loss: As scikit-learn names it.
        output: Of shape (n_samples, n_rows).
        truth: Of the same shape; 1 and -1 for classes.
        epsilon: Of the losses that ignore small errors, or count large ones less.
    """
    margin, error = output * truth, output - truth
    found: Array
    match loss:
        case "hinge":
            found = np.where(margin <= 1, -truth, 0.0)
        case "perceptron":
            found = np.where(margin <= 0, -truth, 0.0)
        case "squared_hinge":
            found = np.where(margin < 1, -2 * truth * (1 - margin), 0.0)
        case "modified_huber":
            found = np.where(margin >= 1, 0.0, np.where(margin >= -1, -2 * truth * (1 - margin), -4 * truth))
        case "log_loss":
            found = -truth / (1 + np.exp(np.minimum(margin, 700)))  # beyond, it overflows
        case "squared_error":
            found = error
        case "huber":
            found = np.clip(error, -epsilon, epsilon)
        case "epsilon_insensitive":
            found = np.where(np.abs(error) > epsilon, np.sign(error), 0.0)
        case "squared_epsilon_insensitive":
            found = np.where(np.abs(error) > epsilon, 2 * (error - epsilon * np.sign(error)), 0.0)
        case _:
            raise ValueError(f"no loss of scikit-learn's is called {loss}")
    return found

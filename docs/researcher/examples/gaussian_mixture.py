"""A mixture of Gaussians by expectation-maximisation, over data that stay where they are."""

import numpy as np

from appliance.training import DataManager, TensorTrainingPlan


class GaussianMixture(TensorTrainingPlan):
    """Hospitals return each component's share of their samples, and its first and second moments."""

    def init_model(self, model_args):
        """The first components, as the statistics that they would leave."""
        means = np.array(model_args["means"], np.float64)
        shares = np.full(len(means), 1 / len(means))
        squares = means[:, :, None] * means[:, None, :] + np.eye(means.shape[1])
        return {"shares": shares, "sums": shares[:, None] * means, "squares": shares[:, None, None] * squares}

    def training_data(self):
        """All columns that the model arguments name."""
        return DataManager(self.dataset.matrix(self.model_args()["columns"]))

    def compute(self, tensors, data, target):
        """What all hospitals found together becomes components (M); then each sample's part in them (E)."""
        chances = self.responsibilities(tensors, data)
        products = data[:, :, None] * data[:, None, :]
        return {
            "shares": chances.mean(axis=0),
            "sums": chances.T @ data / len(data),
            "squares": np.einsum("nk,nij->kij", chances, products) / len(data),
        }

    def responsibilities(self, tensors, data):
        """The probability of each component for each sample."""
        shares, means, covariances = components(tensors)
        shifted = data[:, None, :] - means
        distances = np.einsum("nki,kij,nkj->nk", shifted, np.linalg.inv(covariances), shifted)
        logs = np.log(shares) - (distances + np.linalg.slogdet(covariances)[1]) / 2
        chances = np.exp(logs - logs.max(axis=1, keepdims=True))
        return chances / chances.sum(axis=1, keepdims=True)


def components(tensors):
    """Shares, means and covariances of the statistics; a little is added so that no component closes on a sample."""
    shares = np.maximum(tensors["shares"], 1e-12)
    means = tensors["sums"] / shares[:, None]
    covariances = tensors["squares"] / shares[:, None, None] - means[:, :, None] * means[:, None, :]
    return shares, means, covariances + 1e-6 * np.eye(means.shape[1])

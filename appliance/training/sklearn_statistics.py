"""scikit-learn's models that are made of statistics: what the nodes return adds up to the fit on pooled data.

A node returns means over its training samples, in float64. The mean of those, weighted by numbers of samples, is the
mean over all samples wherever they lie; so ``FedAverage`` is exact, and nothing but it is. Beside these statistics
there may be tensors that all nodes have in common (the centres that samples were assigned to, say); every node forms
them alike from the parameters that it received.

A round sees each training sample once, unless the training arguments say otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from appliance.training.errors import ArgumentInvalidError
from appliance.training.plan import Array, Arrays
from appliance.training.sklearn_learner import Learner, log_odds, mean_square, wrong_share

Float64 = NDArray[np.float64]
_TINY = float(np.finfo(np.float64).tiny)
_SMALLEST = 1e-30  # variance, by which squared distances are divided


class Statistics(Learner):
    """A model made of statistics."""

    def allocate(self) -> None:
        """See ``Learner``."""
        self.show()
        self._means = {name: np.zeros(shape) for name, shape in self.shapes().items()}
        self._common = self.first_common()
        self._received = dict(self._common)
        self._common = self.apply(self._received, self._means)

    def tensors(self) -> Arrays:
        """See ``Learner``."""
        return {**self._received, **self._means}

    def fill(self, parameters: Mapping[str, Array]) -> None:
        """See ``Learner``."""
        self._received = {name: parameters[name].astype(np.float64) for name in self._received}
        self._means = {name: parameters[name].astype(np.float64) for name in self._means}
        self._common = self.apply(self._received, self._means)

    def begin(self) -> None:
        """See ``Learner``."""
        self._seen = 0
        self.sums = {name: np.zeros(shape) for name, shape in self.shapes().items()}

    def update(self, data: Array, target: Array) -> None:
        """See ``Learner``."""
        self._seen += len(data)
        for name, value in self.add_up(data, target).items():
            self.sums[name] += value

    def end(self) -> None:
        """See ``Learner``."""
        self._received, self._means = self._common, {name: value / self._seen for name, value in self.sums.items()}
        self._common = self.apply(self._received, self._means)

    def first_common(self) -> dict[str, Float64]:
        """What all nodes have in common before the first round."""
        return {}

    @abstractmethod
    def show(self) -> None:
        """Let scikit-learn check the model's arguments, on a few rows."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The statistics' shapes."""

    @abstractmethod
    def add_up(self, data: Array, target: Array) -> dict[str, Float64]:
        """Each statistic's sum over a batch."""

    @abstractmethod
    def apply(self, common: Mapping[str, Float64], means: Mapping[str, Float64]) -> dict[str, Float64]:
        """Set the model's fitted attributes; returns what all nodes have in common in the next round.

        Args:
            common: What they had in common when they formed ``means``.
            means: The statistics; all zero before the first round.
        """


class NormalEquations(Statistics):
    """LinearRegression, by first and second moments of data and target together: exact in one round."""

    def check(self) -> None:
        """See ``Learner``."""
        if self.model.positive:
            raise ArgumentInvalidError("LinearRegression with positive=True cannot be made of sums; leave it out.")

    def show(self) -> None:
        """See ``Statistics``."""
        self.model.fit(*self.outline(2))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See ``Statistics``: the target comes last."""
        return {"means": (self.features + 1,), "products": (self.features + 1, self.features + 1)}

    def add_up(self, data: Array, target: Array) -> dict[str, Float64]:
        """See ``Statistics``."""
        joined = np.column_stack([data, target])
        return {"means": joined.sum(axis=0), "products": joined.T @ joined}

    def apply(self, common: Mapping[str, Float64], means: Mapping[str, Float64]) -> dict[str, Float64]:  # noqa: ARG002
        """See ``Statistics``."""
        products, centre = means["products"], means["means"] if self.model.fit_intercept else 0 * means["means"]
        spread = products - np.outer(centre, centre)
        self.model.coef_ = np.linalg.lstsq(spread[:-1, :-1], spread[:-1, -1], rcond=None)[0]
        self.model.intercept_ = float(centre[-1] - centre[:-1] @ self.model.coef_)
        return {}

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the mean squared error."""
        return mean_square(self.model.predict(data), target)

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        """See ``Learner``."""
        return target, self.model.predict(data)


class NewtonSteps(Statistics):
    """LogisticRegression, by a step of Newton's method a round over gradient and Hessian: a handful of rounds.

    A step after which the loss over all nodes is larger is halved.

    Source: Wu et al., Grid Binary LOgistic REgression (GLORE): Building Shared Models Without Sharing Data, Journal of
    the American Medical Informatics Association 19, 2012.
    """

    is_classifier = True

    def check(self) -> None:
        """See ``Learner``."""
        if self.model.l1_ratio or self.model.class_weight is not None:
            raise ArgumentInvalidError(
                "LogisticRegression takes l2 penalties only here, and no class_weight; else use SGDClassifier."
            )
        if np.isinf(self.model.C):
            self._penalty = 0.0
            return
        if "n_samples" not in self.model_args:
            raise ArgumentInvalidError(
                "LogisticRegression weighs its penalty against the sum over all nodes' samples: give their number as "
                "the model argument 'n_samples', or C=float('inf') for no penalty."
            )
        self._penalty = 1 / (self.model.C * self.count("n_samples", minimum=1))

    def show(self) -> None:
        """See ``Statistics``."""
        self.model.fit(*self.outline(self.classes))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See ``Statistics``."""
        size = self._rows * self._columns
        return {"loss": (1,), "gradient": (size,), "hessian": (size, size)}

    def first_common(self) -> dict[str, Float64]:
        """See ``Statistics``: at zero the loss is known."""
        size = self._rows * self._columns
        return {"point": np.zeros(size), "anchor": np.zeros(size), "anchor_loss": np.log([float(self.classes)])}

    def add_up(self, data: Array, target: Array) -> dict[str, Float64]:
        """See ``Statistics``: at ``point``."""
        rows = self._widened(data)
        weights = self._common["point"].reshape(self._rows, self._columns)
        scores = rows @ weights.T
        if self._rows == 1:
            scores = np.column_stack([np.zeros(len(rows)), scores])
        scores = scores - scores.max(axis=1, keepdims=True)
        powers = np.exp(scores)
        chances = powers / powers.sum(axis=1, keepdims=True)
        truth = np.eye(self.classes)[target.astype(np.int64)]
        loss = np.log(powers.sum(axis=1)) - (scores * truth).sum(axis=1)
        first = self.classes - self._rows  # of two classes only the second has a row
        gradient = (chances - truth)[:, first:].T @ rows
        hessian = np.empty((self._rows, self._columns, self._rows, self._columns))
        for one in range(self._rows):
            for other in range(self._rows):
                weight = chances[:, first + one] * ((one == other) - chances[:, first + other])
                hessian[one, :, other, :] = (rows * weight[:, np.newaxis]).T @ rows
        size = self._rows * self._columns
        return {
            "loss": np.array([loss.sum()]),
            "gradient": gradient.reshape(size),
            "hessian": hessian.reshape(size, size),
        }

    def apply(self, common: Mapping[str, Float64], means: Mapping[str, Float64]) -> dict[str, Float64]:
        """See ``Statistics``."""
        point, anchor, anchor_loss = common["point"], common["anchor"], common["anchor_loss"]
        penalised = self._penalty * np.tile(np.arange(self._columns) < self.features, self._rows)
        loss = means["loss"] + (penalised * point**2).sum() / 2
        slack = 1e-9 * (1 + np.abs(anchor_loss))
        # Other nodes may answer from round to round, and have a larger loss everywhere: no halving without end.
        is_close = np.linalg.norm(point - anchor) <= 1e-2 * (1 + np.linalg.norm(anchor))
        if is_close or (loss <= anchor_loss + slack).all():
            curved = means["hessian"] + np.diag(penalised)
            step = np.linalg.lstsq(curved, means["gradient"] + penalised * point, rcond=None)[0]
            following = {"point": point - step, "anchor": point, "anchor_loss": loss}
        else:
            following = {"point": (anchor + point) / 2, "anchor": anchor, "anchor_loss": anchor_loss}
        weights = following["point"].reshape(self._rows, self._columns)
        self.model.coef_ = weights[:, : self.features].copy()
        self.model.intercept_ = weights[:, -1].copy() if self.model.fit_intercept else np.zeros(self._rows)
        return following

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the mean logarithmic loss."""
        chances = self.model.predict_proba(data)[np.arange(len(target)), target.astype(np.int64)]
        return float(-np.log(np.maximum(chances, _TINY)).mean())

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        """See ``Learner``."""
        return target, self.model.decision_function(data)

    @property
    def _rows(self) -> int:
        return self.classes if self.classes > 2 else 1

    @property
    def _columns(self) -> int:
        return self.features + int(self.model.fit_intercept)

    def _widened(self, data: Array) -> Float64:
        return np.column_stack([data, np.ones(len(data))]) if self.model.fit_intercept else data


class NaiveBayes(Statistics):
    """GaussianNB, by each class's share, sums and sums of squares: exact in one round."""

    is_classifier = True

    def show(self) -> None:
        """See ``Statistics``."""
        self.model.fit(*self.outline(self.classes))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See ``Statistics``."""
        table = (self.classes, self.features)
        return {"shares": (self.classes,), "sums": table, "squares": table}

    def add_up(self, data: Array, target: Array) -> dict[str, Float64]:
        """See ``Statistics``."""
        truth = np.eye(self.classes)[target.astype(np.int64)]
        return {"shares": truth.sum(axis=0), "sums": truth.T @ data, "squares": truth.T @ np.square(data)}

    def apply(self, common: Mapping[str, Float64], means: Mapping[str, Float64]) -> dict[str, Float64]:  # noqa: ARG002
        """See ``Statistics``: a class without a sample keeps the mean 0, the variance 1 and next to no chance."""
        shares = np.maximum(means["shares"], _TINY)
        model, divisor, is_seen = self.model, shares[:, np.newaxis], means["shares"][:, np.newaxis] > 0
        spread = means["squares"].sum(axis=0) - np.square(means["sums"].sum(axis=0))
        model.epsilon_ = model.var_smoothing * max(float(spread.max()), 0.0)
        model.class_count_ = means["shares"]
        model.class_prior_ = shares if model.priors is None else np.asarray(model.priors)
        model.theta_ = means["sums"] / divisor
        variances = np.maximum(means["squares"] / divisor - np.square(model.theta_), 0) + model.epsilon_
        model.var_ = np.where(is_seen, np.maximum(variances, _SMALLEST), 1.0)
        return {}

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the share of wrong predictions."""
        return wrong_share(self.predict(data, target)[1].reshape(len(data), -1).argmax(axis=1), target)

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        """See ``Learner``."""
        return target, log_odds(self.model.predict_proba(data))


class Components(Statistics):
    """IncrementalPCA, by mean and second moments: the components of the pooled data, exact in one round.

    Variances are over n and not n - 1, for no node knows how many samples there are in all.
    """

    needs_target = False

    def show(self) -> None:
        """See ``Statistics``."""
        rows = max(self.model.n_components or 1, 2)
        self.model.partial_fit(np.arange(rows * self.features, dtype=np.float64).reshape(rows, self.features))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See ``Statistics``."""
        return {"means": (self.features,), "products": (self.features, self.features)}

    def add_up(self, data: Array, target: Array) -> dict[str, Float64]:  # noqa: ARG002 - there is none
        """See ``Statistics``."""
        return {"means": data.sum(axis=0), "products": data.T @ data}

    def apply(self, common: Mapping[str, Float64], means: Mapping[str, Float64]) -> dict[str, Float64]:  # noqa: ARG002
        """See ``Statistics``."""
        model, centre = self.model, means["means"]
        covariance = means["products"] - np.outer(centre, centre)
        variances, vectors = np.linalg.eigh(covariance)
        variances, rows = np.maximum(variances[::-1], 0), vectors.T[::-1]
        # As scikit-learn turns them: a component's largest entry is positive.
        largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
        rows = rows * np.where(largest < 0, -1.0, 1.0)[:, np.newaxis]
        kept = model.n_components or self.features
        model.mean_, model.var_, model.n_components_ = centre, np.diag(covariance).copy(), kept
        model.components_, model.explained_variance_ = rows[:kept].copy(), variances[:kept].copy()
        model.explained_variance_ratio_ = model.explained_variance_ / max(variances.sum(), _TINY)
        model.noise_variance_ = float(variances[kept:].mean()) if kept < self.features else 0.0
        return {}

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the mean squared distance of an entry from its projection."""
        return mean_square(self.predict(data, target)[1], data)

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:  # noqa: ARG002 - there is none
        """See ``Learner``: the samples, and what the components keep of them."""
        shifted = data - self.model.mean_
        return data, shifted @ self.model.components_.T @ self.model.components_ + self.model.mean_


class Centres(Statistics):
    """MiniBatchKMeans: each centre's samples are counted and added up over all nodes.

    With one batch a round this is Lloyd's algorithm on the pooled data; with several, a node moves its centres after
    each, as the source does. A centre that nobody has samples of stays where it is. The first centres are ``init``,
    where it is an array, else drawn from the standard normal distribution, which suits standardised data.

    Source: Sculley, Web-Scale K-Means Clustering, WWW 2010.
    """

    needs_target = False

    def show(self) -> None:
        """See ``Statistics``."""
        rows = np.arange(self.model.n_clusters, dtype=np.float64)
        self.model.partial_fit(np.repeat(rows[:, np.newaxis], self.features, axis=1))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See ``Statistics``."""
        return {"shares": (self.model.n_clusters,), "sums": (self.model.n_clusters, self.features)}

    def first_common(self) -> dict[str, Float64]:
        """See ``Statistics``."""
        given, shape = self.model.init, (self.model.n_clusters, self.features)
        if isinstance(given, str) or callable(given):
            return {"centers": np.random.standard_normal(shape)}  # noqa: NPY002 - seeded by the plan
        return {"centers": np.asarray(given, np.float64).reshape(shape)}

    def begin(self) -> None:
        """See ``Learner``."""
        super().begin()
        self._local = self._common["centers"]

    def add_up(self, data: Array, target: Array) -> dict[str, Float64]:  # noqa: ARG002 - there is none
        """See ``Statistics``."""
        belongs = np.eye(self.model.n_clusters)[_nearest(data, self._local)]
        added = {"shares": belongs.sum(axis=0), "sums": belongs.T @ data}
        counts, sums = (self.sums[name] + added[name] for name in ("shares", "sums"))
        self._local = _moved(self._local, counts, sums)
        return added

    def apply(self, common: Mapping[str, Float64], means: Mapping[str, Float64]) -> dict[str, Float64]:
        """See ``Statistics``."""
        centers = _moved(common["centers"], means["shares"], means["sums"])
        self.model.cluster_centers_ = centers
        return {"centers": centers}

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the mean squared distance of an entry from its centre's."""
        return mean_square(self.predict(data, target)[1], data)

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:  # noqa: ARG002 - there is none
        """See ``Learner``: the samples, and the centres nearest to them."""
        centers = self.model.cluster_centers_
        return data, centers[_nearest(data, centers)]


def _nearest(data: Array, centers: Float64) -> NDArray[np.int64]:
    nearest: NDArray[np.int64] = np.argmin(np.square(centers).sum(axis=1) - 2 * data @ centers.T, axis=1)
    return nearest


def _moved(centers: Float64, counts: Float64, sums: Float64) -> Float64:
    has_some = counts > 0
    moved = centers.copy()
    moved[has_some] = sums[has_some] / counts[has_some, np.newaxis]
    return moved

"""Logistic regression by scikit-learn, with the steps of one of declearn's optimizers."""

from declearn.optimizer import Optimizer
from sklearn.linear_model import SGDClassifier

from appliance.training import DataManager, SklearnTrainingPlan


class Readmission(SklearnTrainingPlan):
    """The model has the loss and the penalty, the optimizer all that concerns steps."""

    def init_model(self, model_args):
        """Its own learning rate has no meaning here."""
        return SGDClassifier(loss="log_loss", alpha=1e-4)

    def init_optimizer(self, optimizer_args):
        """Momenta last over rounds; Lasso draws useless coefficients to nothing."""
        return Optimizer(
            lrate=optimizer_args["lr"],
            regularizers=[("lasso", {"alpha": 1e-3})],
            modules=[("momentum", {"beta": 0.9})],
        )

    def training_data(self):
        """The columns that the model arguments name."""
        args = self.model_args()
        return DataManager(self.dataset.matrix(args["columns"]), self.dataset.column(args["target"]))

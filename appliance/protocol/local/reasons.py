"""Why a plan's arguments do not fit: the training room's own fixed sentences, which a researcher may read as they are.

They hold nothing of the data, and no word and no number that a plan could choose: whoever forges one says which of so
many it is, and no more. The runner and the warden repeat what stands here, word for word, and nothing else.
"""

from __future__ import annotations

_COUNTS = {"n_features": 1, "n_classes": 2, "n_samples": 1}

ARGUMENT_REASONS = frozenset(
    {
        "A network learns batch by batch here: use solver='sgd' or 'adam', without early_stopping.",
        "A test needs 'test_metric' among the training arguments, or a testing_step.",
        "LinearRegression with positive=True cannot be made of sums; leave it out.",
        "LogisticRegression takes l2 penalties only here, and no class_weight; else use SGDClassifier.",
        (
            "LogisticRegression weighs its penalty against the sum over all nodes' samples: give their number as the "
            "model argument 'n_samples', or C=float('inf') for no penalty."
        ),
        "Model argument 'n_features' is not the number of the data's columns.",
        *(f"Model argument '{name}' must be a whole number from {least}." for name, least in _COUNTS.items()),
        "Scaffold needs one learning rate for all tensors; the plan's optimizer has more.",
        "Scaffold with declearn's optimizers needs ScaffoldClientModule among the optimizer's modules as well.",
        "Scaffold with declearn's optimizers needs the aggregator Scaffold() as well.",
        "Scaffold works with torch.optim.SGD without momentum; the plan has another.",
        "Standardise needs a size above 0 for each feature, or none.",
        "Standardise needs the number of features: a whole number from 1.",
        (
            "The aggregator corrects each step, which needs a PyTorch plan, or an init_optimizer that returns one of "
            "declearn's."
        ),
        "The aggregator asks for a correction that this node's release does not know.",
        "These tensors predict nothing: write testing_step, and leave out 'test_metric'.",
        (
            "Training argument 'fedprox_mu' needs a PyTorch plan, or an init_optimizer that returns one of declearn's; "
            "else leave it out."
        ),
        (
            "Training argument 'optimizer_args' needs a PyTorch plan, or an init_optimizer that returns one of "
            "declearn's; a scikit-learn model that makes its own steps takes its learning rate (eta0, learning_rate, "
            "alpha) in model_args."
        ),
        "declearn's scaffold-client must be the last module, without w_decay.",
        "scikit-learn does not take the arguments given to the plan's model.",
        "test_metric_args.spacing needs a side for each dimension of the images.",
        "torch.optim.SGD does not take optimizer_args as given.",
    }
)

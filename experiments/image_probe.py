"""What the images know: the accuracy of a linear classifier on a frozen image encoder's features, without skeletons.

    python -m experiments.image_probe --records=data/videos [--protocols=fold_1,fold_2] \\
        [--encoder=efficientnet_lite0] [--weights=imagenet]

FAM can teach the skeleton model only what the features of the images know. For each protocol, a logistic regression
learns from the training clips' features, which are those that FAM aligns with, and classifies the test clips. They are
standardized by the training clips; the weight of the L2 penalty is `--penalty` per clip. Beside it: the share of test
clips that the most frequent training class would get right. Clips without an image are left out.

Without `--protocols`, every protocol of the records counts but those that test with the validation part of another one
(`fold_1_validation` beside `fold_1`). The last row is over all test clips; one that tests in several of the protocols
counts in each.
"""

import argparse
import pathlib
from collections.abc import Collection, Sequence

import numpy as np

from data_prep.formats.dealing import VALIDATION
from experiments.markdown import markdown_table
from mmcl_jax import image_features
from mmcl_jax.config import Config, get_config
from mmcl_jax.data.records import Records, RecordsError
from mmcl_jax.runtime.errors import plain_errors

_ITERATIONS = 300


def fit(features: np.ndarray, labels: np.ndarray, classes: int, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[D, K]` and biases `[K]` of a logistic regression on `[N, D]` features; `labels` are int `[N]`."""
    from scipy.optimize import minimize

    targets = np.eye(classes)[labels]

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, biases = values[:-classes].reshape(-1, classes), values[-classes:]
        logits = features @ weights + biases
        logits = logits - logits.max(axis=1, keepdims=True)
        logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        errors = (np.exp(logarithms) - targets) / len(labels)
        gradient = features.T @ errors + penalty * weights
        loss = -(targets * logarithms).sum() / len(labels) + penalty / 2 * (weights**2).sum()
        return loss, np.concatenate([gradient.ravel(), errors.sum(axis=0)])

    start = np.zeros((features.shape[1] + 1) * classes)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}).x
    return found[:-classes].reshape(-1, classes), found[-classes:]


def probe(features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, penalty: float) -> float:
    """Top-1, 0 to 1, on the clips `test` of a classifier of `[N, D]` features that learned from the clips `train`."""
    mean, deviation = features[train].mean(axis=0), features[train].std(axis=0)
    scaled = (features - mean) / np.where(deviation > 0, deviation, 1)
    weights, biases = fit(scaled[train], labels[train], int(labels.max()) + 1, penalty)
    return float(((scaled[test] @ weights + biases).argmax(axis=1) == labels[test]).mean())


def usual_protocols(known: Collection[str]) -> list[str]:
    """The protocols of records, but those that test with the validation part of another one."""
    return [name for name in known if not (name.endswith(VALIDATION) and name.removesuffix(VALIDATION) in known)]


def _divided(records: Records, protocol: str, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the clips with an image, bool `[N]`, that train and that test. Raises: RecordsError."""
    train, test = (rows[usable[rows]] for rows in (records.select(protocol, part) for part in ("train", "test")))
    if not len(train) or not len(test):
        raise RecordsError(
            f"{records.root}: under {protocol}, {len(train)} clips with an image train and {len(test)} test; name "
            "other protocols with --protocols"
        )
    return train, test


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--records", required=True, type=pathlib.Path, help="records with images")
    parser.add_argument("--protocols", help="comma-separated (default: all but those with _validation)")
    parser.add_argument("--encoder", default="efficientnet_lite0", help="image encoder (default efficientnet_lite0)")
    parser.add_argument("--weights", default="imagenet", help="its weights (default imagenet)")
    parser.add_argument("--penalty", type=float, default=0.1, help="of the squared weights (default 0.1)")
    options = parser.parse_args(arguments)
    with plain_errors("interrupted"):
        config = get_config()
        config.model.image_encoder, config.model.image_encoder_weights = options.encoder, options.weights
        records = Records(options.records)
        named = options.protocols.split(",") if options.protocols else usual_protocols(records.protocols)
        lacking = set(records.clips_without(np.arange(len(records)), "images"))
        usable = np.array([str(name) not in lacking for name in records.index["name"]])
        if not usable.any():
            raise RecordsError(f"{records.root}: no clip has an image; prepare the records with --images")
        labels = records.index["label"].astype(np.int64)
        divided = [(protocol, *_divided(records, protocol, usable)) for protocol in named]
        encoded = image_features.encode(Config.of(config), records, np.flatnonzero(usable)).astype(np.float64)
        features = np.zeros((len(records), encoded.shape[1]))
        features[usable] = encoded
        rows = []
        for protocol, train, test in divided:
            frequent = (labels[test] == np.bincount(labels[train]).argmax()).mean()
            accuracy = probe(features, labels, train, test, options.penalty)
            rows.append((protocol, str(len(train)), str(len(test)), 100 * accuracy, 100 * frequent))
        counts = np.array([int(row[2]) for row in rows])
        overall = [float(np.dot(counts, [row[column] for row in rows]) / counts.sum()) for column in (3, 4)]
        rows.append(("all test clips", "", str(counts.sum()), *overall))
    shown = [(*row[:3], f"{row[3]:.1f}", f"{row[4]:.1f}") for row in rows]
    print(markdown_table(("protocol", "training clips", "test clips", "top-1", "most frequent class"), shown))


if __name__ == "__main__":
    main()

"""The same door for NumPy and scikit-learn: a softmax regression on a site's digits. Arrays go by name, in both directions."""

import numpy as np
from sklearn.linear_model import SGDClassifier  # type: ignore[import-untyped,unused-ignore]  # it ships no types

import hansa.client as hc


def main() -> None:
    rows = hc.data().train
    x, classes = rows.x.reshape(len(rows), -1).astype(np.float64), np.arange(10)
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.001)
    model.partial_fit(x[:1], rows.y[:1], classes)  # makes its arrays
    while task := hc.receive():
        model.coef_, model.intercept_ = task.params["coef"], task.params["intercept"]
        for _ in range(task.config["epochs"]):
            model.partial_fit(x, rows.y)
        hc.send({"coef": model.coef_, "intercept": model.intercept_}, {"accuracy": model.score(x, rows.y)}, examples=len(x))


if __name__ == "__main__":
    main()

"""The two models in scikit-learn, as MLServer's and MLflow's own flavours want them. Arguments: kind, rows (npz), folder."""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

kind, rows, folder = sys.argv[1], np.load(sys.argv[2]), Path(sys.argv[3])
trees = HistGradientBoostingClassifier(
    max_iter=100, learning_rate=0.1, max_leaf_nodes=31, min_samples_leaf=20, l2_regularization=1.0, early_stopping=False
)
models = {"linear": make_pipeline(StandardScaler(), LogisticRegression()), "trees": trees}
for name, model in models.items():
    model.fit(rows["rows"], rows["label"])
    if kind == "mlflow":
        import mlflow

        mlflow.sklearn.save_model(model, folder / name, serialization_format="cloudpickle")
    else:
        import joblib

        (folder / name).mkdir(parents=True)
        joblib.dump(model, folder / name / "model.joblib")
        settings = {
            "name": name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib", "version": "1"},
        }
        (folder / name / "model-settings.json").write_text(json.dumps(settings))
print(json.dumps({}))

"""FastAPI with pydantic and onnxruntime, one route per model. Arguments: port, then name, ONNX file, output, column each."""

import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Request(BaseModel):
    features: list[float]


class Answer(BaseModel):
    score: float


def route(app: FastAPI, name: str, path: str, output: str, column: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (rows,) = session.get_inputs()

    @app.post(f"/{name}")
    async def predict(request: Request) -> Answer:
        given = np.array([request.features], np.float32)
        return Answer(score=float(session.run([output], {rows.name: given})[0][0, column]))


app = FastAPI()
for start in range(2, len(sys.argv), 4):
    name, path, output, column = sys.argv[start : start + 4]
    route(app, name, path, output, int(column))
uvicorn.run(
    app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning", loop="uvloop", http="httptools"
)

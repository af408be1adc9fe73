"""Quantizes the digits networks with onnxruntime: ``python -m case_studies.edge_gate.quantize``.

Exports a network of ``case_studies/digits`` to float ONNX and writes what onnxruntime's static
quantizer makes of it, in QDQ form, with ranges calibrated on images of the training split:

- ``int8``: weights int8 with a scale a channel, activations uint8;
- ``int8_act16``: the same weights, activations uint16;
- ``int8_raw``: as ``int8``, but calibrated on raw pixels from 0 to 16, which the network never
  sees: whoever wrote the calibration reader forgot to divide by 16.

torch 2.13.0, onnx 1.23.2 and onnxruntime 1.31.1; other versions may write other bytes.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from case_studies.digits import train

FOLDER = Path(__file__).parent
NETWORKS = ("dense", "conv")
CALIBRATION = 256
"""Images that ranges are calibrated on, the first of the training split."""
OPSET = 17
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scheme:
    """How to quantize: the type of activations, and what the calibrated pixels are scaled by."""

    activations: str = "QUInt8"
    pixels: float = 1.0


SCHEMES = {
    "int8": Scheme(),
    "int8_act16": Scheme(activations="QUInt16"),
    "int8_raw": Scheme(pixels=16.0),
}


class Image(nn.Module):
    """Pixels in a row as an image; torch exports its own Unflatten with run-time arithmetic."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, 1, 8, 8)``."""
        return x.reshape(-1, 1, 8, 8)


class Images(CalibrationDataReader):  # type: ignore[misc]
    """Hands images to the calibration one by one, ``(1, 64)`` float32."""

    def __init__(self, x: Floats) -> None:
        self._batches = iter([{"x": row[None]} for row in x])

    def get_next(self) -> dict[str, Floats] | None:
        """Return the next image by the name of the input, ``None`` behind the last."""
        return next(self._batches, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep advice about exporters and preprocessing off the screen."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logging.disable(logging.NOTSET)


def calibration_images() -> Floats:
    """Return the images that ranges are calibrated on, ``(count, 64)`` in [0, 1]."""
    x, _ = train.data()
    seen, _ = train.split(len(x))
    chosen: Any = x[seen[:CALIBRATION]]
    return np.asarray(chosen, dtype=np.float32)


def module(kind: str) -> nn.Sequential:
    """Return a network of the digits in evaluation mode."""
    program = torch.export.load(train.FOLDER / f"{kind}.pt2")
    made = train.MAKERS[kind]()
    made.load_state_dict(dict(program.state_dict))
    if kind == "conv":
        made[0] = Image()
    return made.requires_grad_(False).eval()


def export(kind: str, path: Path) -> None:
    """Write a network as float ONNX: input ``x`` (batch, 64), output ``y`` (batch, 10)."""
    with quiet():
        torch.onnx.export(
            module(kind),
            (torch.zeros(1, 64),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )


def quantize(source: Path, target: Path, scheme: Scheme, images: Floats) -> None:
    """Write what the static quantizer makes of a float file.

    Args:
        source: float ONNX.
        target: where the quantized file goes.
        scheme: how.
        images: ``(count, 64)`` in [0, 1].
    """
    with quiet():
        quantize_static(
            source,
            target,
            Images((images * scheme.pixels).astype(np.float32)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType[scheme.activations],
            weight_type=QuantType.QInt8,
        )


def main() -> None:
    """Write the float file and the quantized ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="dense", help="which (dense)")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where the files go")
    options = parser.parse_args()
    source, images = options.output / "float.onnx", calibration_images()
    export(options.network, source)
    print(f"{source}: {source.stat().st_size} bytes")
    for name, scheme in SCHEMES.items():
        target = options.output / f"{name}.onnx"
        quantize(source, target, scheme, images)
        print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()

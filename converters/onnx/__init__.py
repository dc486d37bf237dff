"""ONNX: written by torch.onnx, run by ONNX Runtime."""

from tsmzoo.artifact.converter import Converter
from tsmzoo.artifact.tensors import TensorConventions
from tsmzoo.formats import Format

CONVERTER = Converter(
    format=Format.ONNX,
    conventions=TensorConventions(frame_dtype="uint8", clip_dtype="uint8"),
    precisions=("fp32",),
    states=("explicit", "packed"),
    dynamic_batch=True,
    libraries=("torch", "onnx", "onnxscript", "onnxruntime"),
)

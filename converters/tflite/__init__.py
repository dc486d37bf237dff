"""TFLite: written by litert-torch, run by the LiteRT interpreter."""

from tsmzoo.artifact.converter import Converter
from tsmzoo.artifact.tensors import TensorConventions
from tsmzoo.formats import Format

CONVERTER = Converter(
    format=Format.TFLITE,
    conventions=TensorConventions(frame_layout="NHWC", clip_layout="THWC", frame_dtype="uint8", clip_dtype="uint8"),
    precisions=("fp32",),
    states=("explicit", "packed"),
    gpu_safe=True,
    libraries=("torch", "litert-torch", "litert-converter", "ai-edge-litert"),
)

"""Core ML: ML Programs written by coremltools, run by Core ML on macOS and by our interpreter elsewhere."""

from tsmzoo.artifact.converter import Converter
from tsmzoo.artifact.tensors import TensorConventions
from tsmzoo.formats import Format

CONVERTER = Converter(
    format=Format.COREML,
    conventions=TensorConventions(
        # An image holds bytes. Clips are of rank 5, which no image is, and multi-arrays hold no bytes.
        frame_dtype="uint8",
        frame_type="image",
        packed_state="packed_state",  # `state` is a word of ML Programs, which coremltools renames
        kept_dtype="float16",  # Core ML keeps no others
    ),
    precisions=("fp32", "fp16"),
    remarks={"fp16": "Core ML's own default"},
    states=("explicit", "packed", "implicit"),
    is_folder=True,
    chooses_threads=True,
    libraries=("torch", "coremltools"),
)

"""The IDX format of MNIST: two zero bytes, a type code, the number of axes, their lengths, the data."""

import math
import struct

import torch
from torch import Tensor

UNSIGNED_BYTE = 0x08  # the only type code that MNIST's files use


def decode_idx(content: bytes) -> Tensor:
    """Return the uint8 array of an IDX file.

    Args:
        content: the whole file.

    Returns:
        A tensor of the shape that the header names, dtype uint8.

    Raises:
        ValueError: the format or type code is another, or the length does not fit the header.
    """
    if content[:3] != bytes((0, 0, UNSIGNED_BYTE)) or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"an IDX file of bytes must start with 00 00 08 and its axes, got {content[:4].hex(' ')}")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(f"the header promises {math.prod(shape)} bytes of data, got {len(content) - start}")
    # Copied to a bytearray, because torch warns of read-only memory.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def encode_idx(array: Tensor) -> bytes:
    """Return the bytes of an IDX file with the uint8 tensor `array`. `decode_idx` inverts it."""
    header = struct.pack(f">2xBB{array.ndim}I", UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.numpy().tobytes()

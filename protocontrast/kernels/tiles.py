"""Tensors as kernels take them, with their strides, and the tiles of pixels that programs walk."""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.kernels.operands import narrowed


class Map(NamedTuple):
    """A tensor (B, D, P) of any strides, or (B, P)."""

    pointer: Any
    stride_b: Any
    stride_d: Any
    stride_p: Any
    pixels: Any


class Vector(NamedTuple):
    """A tensor (C,) of any stride."""

    pointer: Any
    stride: Any


class Tile(NamedTuple):
    """Pixels [BLOCK_P] of one image, whose number is int64; some may lie behind its end."""

    features: Any
    image: Any
    offs: Any


def map_of(tensor: Tensor | None) -> Map | None:
    """A tensor as kernels take it; None where there is none."""
    if tensor is None:
        return None
    strides = tensor.stride()
    stride_d = strides[1] if len(strides) == 3 else 0
    return Map(tensor, strides[0], stride_d, strides[-1], tensor.shape[-1])


def vector_of(tensor: Tensor | None) -> Vector | None:
    """The same of one axis."""
    return None if tensor is None else Vector(tensor, tensor.stride(0))


@triton.jit
def span_at(features, number, SPAN: tl.constexpr):
    """The image of a map's span of SPAN pixels with this number, int64, and the first pixel."""
    spans = tl.cdiv(features.pixels, SPAN)
    return (number // spans).to(tl.int64), (number % spans) * SPAN


@triton.jit
def tile_at(features, image, first, META: tl.constexpr):
    """The tile of an image's pixels from the first on."""
    return Tile(features, image, first + tl.arange(0, META.BLOCK_P))


@triton.jit
def tile_of(features, number, META: tl.constexpr):
    """The tile of this number, images one after the other."""
    image, first = span_at(features, number, META.BLOCK_P)
    return tile_at(features, image, first, META)


@triton.jit
def own_tile(features, META: tl.constexpr):
    """The tile of a program that has a single one."""
    return tile_of(features, tl.program_id(0), META)


@triton.jit
def inside(tile):
    """Which pixels [BLOCK_P] of a tile are in the image."""
    return tile.offs < tile.features.pixels


@triton.jit
def flat(tile):
    """Where pixels [BLOCK_P] of a tile lie in a contiguous tensor (B, P), int64."""
    return tile.image * tile.features.pixels + tile.offs


@triton.jit
def addresses(whole, tile, offs_d):
    """Where a map has the channels of a tile's pixels, [BLOCK_P, BLOCK_D]."""
    return (
        whole.pointer
        + tile.image * whole.stride_b
        + tile.offs[:, None].to(tl.int64) * whole.stride_p
        + offs_d[None, :].to(tl.int64) * whole.stride_d
    )


@triton.jit
def addresses_across(whole, tile, offs_d):
    """The same, [BLOCK_D, BLOCK_P]; spelled out, since triton 3.7 does not lower a transpose of
    addresses on AMD."""
    return (
        whole.pointer
        + tile.image * whole.stride_b
        + tile.offs[None, :].to(tl.int64) * whole.stride_p
        + offs_d[:, None].to(tl.int64) * whole.stride_d
    )


@triton.jit
def load_channels(whole, tile, offs_d, D: tl.constexpr):
    """[BLOCK_P, BLOCK_D] of a map of D channels in its own dtype, 0 outside."""
    # The mask holds no value read from memory: one per pixel would forbid wide loads.
    mask = inside(tile)[:, None] & (offs_d[None, :] < D)
    return tl.load(addresses(whole, tile, offs_d), mask=mask, other=0.0)


@triton.jit
def from_channel(whole, start):
    """A map from a channel on: blocks of as many channels then share their offsets."""
    pointer = whole.pointer + tl.full([], start, tl.int64) * whole.stride_d
    return Map(pointer, whole.stride_b, whole.stride_d, whole.stride_p, whole.pixels)


@triton.jit
def load_tile(tile, offs_d, META: tl.constexpr):
    """[BLOCK_P, BLOCK_D] of the features."""
    return load_channels(tile.features, tile, offs_d, META.D)


@triton.jit
def load_across(tile, offs_d, META: tl.constexpr):
    """[BLOCK_D, BLOCK_P] of the features: the left factor of a sum over pixels as it is."""
    mask = inside(tile)[None, :] & (offs_d[:, None] < META.D)
    return tl.load(addresses_across(tile.features, tile, offs_d), mask=mask, other=0.0)


@triton.jit
def load_pixels(whole, tile):
    """[BLOCK_P] of a map without channels, 0 outside."""
    where = whole.pointer + tile.image * whole.stride_b + tile.offs.to(tl.int64) * whole.stride_p
    return tl.load(where, mask=inside(tile), other=0)


@triton.jit
def store_tile(whole, tile, offs_d, block, D: tl.constexpr):
    """[BLOCK_P, BLOCK_D] written to a map of D channels, in its own dtype."""
    mask = inside(tile)[:, None] & (offs_d[None, :] < D)
    rounded = narrowed(block, whole.pointer.dtype.element_ty)
    tl.store(addresses(whole, tile, offs_d), rounded, mask=mask)


@triton.jit
def store_across(whole, tile, offs_d, block, D: tl.constexpr):
    """[BLOCK_D, BLOCK_P] written to a map of D channels, in its own dtype."""
    mask = inside(tile)[None, :] & (offs_d[:, None] < D)
    rounded = narrowed(block, whole.pointer.dtype.element_ty)
    tl.store(addresses_across(whole, tile, offs_d), rounded, mask=mask)

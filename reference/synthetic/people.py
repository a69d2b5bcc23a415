"""Persons: head, torso, arms and legs, about 1.7 metres tall."""

from __future__ import annotations

from typing import Final

from reference.synthetic.canvas import Stamp
from reference.synthetic.painter import Painter

PERSON: Final = Stamp(11)


def paint_person(painter: Painter, x: float, z: float) -> None:
    """Paint a person who stands or walks at (x, z), facing the camera or turned away."""
    tall = painter.between(1.65, 2.0)
    stamp = PERSON.at(z)
    skin = painter.variant("skin")
    trousers = painter.colour("trousers", 6)
    shirt_variant = painter.variant("shirt")
    shirt = painter.colour("shirt", 6, shirt_variant)
    sleeve = painter.colour("shirt", 6, shirt_variant, 0.8)
    stride = painter.between(0.04, 0.26)
    hip, neck = 0.48 * tall, 0.84 * tall
    for leg in (-1, 1):
        foot = x + leg * (stride + 0.05)
        corners = [(foot - 0.12, 0.0, z), (foot + 0.12, 0.0, z)]
        corners += [(x + leg * 0.1 + 0.13, hip, z), (x + leg * 0.1 - 0.13, hip, z)]
        painter.shape(corners, trousers, stamp)
    for arm in (-1, 1):
        shoulder, hand = x + arm * 0.27, x + arm * (0.33 + 0.6 * stride)
        corners = [(shoulder - 0.09, neck, z), (shoulder + 0.09, neck, z)]
        corners += [(hand + 0.08, hip - 0.05, z), (hand - 0.08, hip - 0.05, z)]
        painter.shape(corners, sleeve, stamp)
    torso = [(x - 0.25, hip - 0.05, z), (x + 0.25, hip - 0.05, z)]
    torso += [(x + 0.31, neck, z), (x - 0.31, neck, z)]
    painter.shape(torso, shirt, stamp)
    hair = painter.colour("trunk", 10, factor=0.6)
    painter.disc((x, 0.94 * tall, z), 0.18, hair, stamp, squash=0.85)
    painter.disc((x, 0.91 * tall, z), 0.155, painter.colour("skin", 6, skin), stamp, squash=0.85)

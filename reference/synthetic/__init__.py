"""Drawn street scenes: a source and a target domain that need no download.

The scenes are a toy with the structure of driving data (perspective, occlusion, rare and thin
classes, a change of look between two domains) on which the whole recipe runs in minutes.
`draw_scene` draws one image with its labels; `write_domains` writes whole sets in the layouts
of GTA5 and Cityscapes.
"""

from reference.synthetic.scene import draw_scene
from reference.synthetic.storage import Domains, Sizes, write_domains

__all__ = ["Domains", "Sizes", "draw_scene", "write_domains"]

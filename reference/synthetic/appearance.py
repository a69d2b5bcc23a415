"""From a painted canvas to a picture."""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from reference.synthetic.painter import ON_GROUND, SUPERSAMPLE, Camera, Lamp, Material, Painter

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# The camera's own head lamps: brightness, metres until it has fallen to 37 %, share of the width.
_OWN, _OWN_REACH, _OWN_WIDTH = 0.6, 14.0, 0.32
_STREET: Final = 0.55
# However many lamps there are, a camera exposes for them.
_BRIGHTEST: Final = 0.7
# A lamp's bright core and the glow around it: brightness, and radius in metres.
_CORE, _HALO, _SMALLEST = (230.0, 0.25), (75.0, 0.9), 1.5
_WINDOW: Final = np.array([170.0, 130.0, 70.0], dtype=np.float32)
# How many standard deviations above the mean noise has to lie for windows there to be lit.
_AT_HOME: Final = 0.7


def _grid(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    v, u = (np.arange(side, dtype=np.float32) + np.float32(0.5) for side in shape[:2])
    return v[:, None], u[None, :]


def _tint(lamp: Lamp) -> Floats:
    return np.array(lamp.colour, dtype=np.float32) / 255.0


def _lamplight(painter: Painter, depth: Floats) -> Floats:
    """How strongly lamps light every pixel, a factor per channel on surface colours, (H, W, 3)."""
    v, u = _grid(depth.shape)
    camera = painter.camera
    aside = (u - camera.centre) / (_OWN_WIDTH * depth.shape[1])
    above = np.maximum(camera.horizon - v, 0.0) / (0.12 * depth.shape[0])
    own = _OWN * np.exp(-depth / _OWN_REACH - aside**2 - above**2)
    light = np.repeat(own[..., None], 3, axis=-1)
    for lamp in (lamp for lamp in painter.canvas.lamps if lamp.reach > 0):
        tall, pixels = abs(lamp.foot[1] - lamp.at[1]), lamp.reach * lamp.metre
        across = (u - lamp.at[0]) / pixels
        down = (v - (lamp.foot[1] + lamp.at[1]) / 2) / (0.7 * tall + 0.3 * pixels)
        ahead = (depth - lamp.z) / lamp.reach
        weight = _STREET * np.exp(-(across**2) - down**2 - ahead**2)
        light += weight[..., None] * _tint(lamp)
    return np.asarray(_BRIGHTEST * (1.0 - np.exp(-light / _BRIGHTEST)), dtype=np.float32)


def _is_seen(lamp: Lamp, codes: Bytes) -> bool:
    """Whether nothing was painted over a lamp."""
    column, row = map(int, lamp.at)
    inside = 0 <= row < codes.shape[0] and 0 <= column < codes.shape[1]
    return inside and abs(int(codes[row, column, 2]) - lamp.z) <= 1.0


def _shining(painter: Painter, codes: Bytes, noise: Floats) -> Floats:
    """The light of lamps and lit windows themselves, 0..255, (H, W, 3).

    `noise` is smooth, of unit spread: where it is high somebody is at home.
    """
    v, u = _grid(codes.shape)
    house = (codes[..., 0] == 2) & (codes[..., 1] == Material.GLASS)
    light = np.where((house & (noise > _AT_HOME))[..., None], _WINDOW, np.float32(0.0))
    for lamp in (lamp for lamp in painter.canvas.lamps if _is_seen(lamp, codes)):
        squared = (u - lamp.at[0]) ** 2 + (v - lamp.at[1]) ** 2
        for bright, metres in (_CORE, _HALO):
            radius = max(metres * lamp.metre, _SMALLEST)
            light += (bright * np.exp(-squared / radius**2))[..., None] * _tint(lamp)
    return np.asarray(light, dtype=np.float32)


# Shares by which a texture lightens and darkens each material: pixel-fine grain, coarser patches.
_TEXTURE: Final[dict[Material, tuple[float, float]]] = {
    Material.SMOOTH: (0.02, 0.02), Material.ASPHALT: (0.10, 0.05), Material.PAVING: (0.06, 0.04),
    Material.GRASS: (0.24, 0.10), Material.FOLIAGE: (0.26, 0.14), Material.MASONRY: (0.07, 0.05),
    Material.GLASS: (0.04, 0.16), Material.SKY: (0.0, 0.0),
}  # fmt: skip
_SHADOW: Final = 0.48
_JOINT: Final = 0.22
# The sky is hazed as if it were this near, metres; else no clouds would be left of it.
_SKY_HAZE: Final = 25.0


def _per_material(kind: int, factor: float) -> Floats:
    return np.array([_TEXTURE[material][kind] * factor for material in Material], np.float32)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cell: int) -> Floats:
    """Return noise of unit spread that changes over about `cell` pixels."""
    rows, columns = shape[0] // cell + 2, shape[1] // cell + 2
    coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    return np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _joints(camera: Camera, z: Floats, columns: int, tile: float) -> Mask:
    """Return where the joints between paving slabs run, on the ground plane."""
    depth = z[:, None]
    across = np.arange(columns, dtype=np.float32) - camera.centre
    x = across[None, :] * (depth / camera.focal) - camera.curve * depth * depth + camera.lateral
    return (np.mod(x, tile) < 0.12 * tile) | (np.mod(depth, tile) < 0.14 * tile)


def _paint_sky(painter: Painter, picture: Floats, sky: Mask) -> None:
    high, low, cloud = (painter.look.colours[k][0] for k in ("sky high", "sky low", "cloud"))
    height = np.arange(len(sky)) / max(painter.camera.horizon, 1.0)
    field = _smooth_noise(painter.rng, sky.shape, 40)
    field = field + 0.6 * _smooth_noise(painter.rng, sky.shape, 14)
    cover = painter.between(-0.2, 1.4)
    clouds = ((field - cover) * 0.8).clip(0, 1)[..., None]
    blue = high + (low - high) * height.clip(0, 1)[:, None, None]
    picture[sky] = (blue + (cloud - blue) * clouds).astype(np.float32)[sky]


def _surface(painter: Painter, picture: Floats, codes: Bytes) -> Floats:
    """Texture, shade and haze the painted colours; return them as light, 0..255."""
    setting, camera, shape = painter.setting, painter.camera, codes.shape[:2]
    material, distance = codes[..., 1], codes[..., 2]
    ground = distance == ON_GROUND
    below = np.maximum(np.arange(shape[0]) + 0.5 - camera.horizon, 0.5)
    ahead = np.minimum(camera.focal * camera.height / below, 250.0).astype(np.float32)
    depth = np.where(ground, ahead[:, None], distance.astype(np.float32))

    sky = material == Material.SKY
    _paint_sky(painter, picture, sky)
    fine = painter.rng.standard_normal(shape, dtype=np.float32)
    coarse = _smooth_noise(painter.rng, shape, 7)
    texture = 1.0 + _per_material(0, setting.grain)[material] * fine
    texture += _per_material(1, setting.patches)[material] * coarse
    joints = _joints(camera, ahead, shape[1], setting.tile) & (material == Material.PAVING)
    texture[joints & (depth < 30.0)] -= _JOINT
    shade = (np.asarray(painter.canvas.shade) > 0) & ground
    texture[shade] *= 1.0 - _SHADOW
    lit = picture * texture[..., None]

    clear = np.exp(-depth / setting.haze_range)
    clear[sky] = np.exp(-_SKY_HAZE / setting.haze_range)
    haze = np.array(setting.haze, dtype=np.float32)
    cast = 1.0 + setting.cast * painter.rng.standard_normal(3)
    light = np.array(setting.light * cast, dtype=np.float32)
    if setting.lamps > 0:
        light = light + setting.lamps * _lamplight(painter, depth)
    seen = haze + (lit * light - haze) * clear[..., None]
    if setting.lamps > 0:
        seen += setting.lamps * _shining(painter, codes, _smooth_noise(painter.rng, shape, 9))
    return seen.astype(np.float32)


def develop(painter: Painter) -> tuple[Bytes, Bytes]:
    """Turn the painted canvas into an image uint8 (H, W, 3) and labels uint8 (H, W).

    Both are smaller than the canvas by `SUPERSAMPLE`; a pixel's label is that of one of the canvas
    pixels it averages.
    """
    codes, setting = np.asarray(painter.canvas.codes), painter.setting
    train_ids = np.ascontiguousarray(codes[::SUPERSAMPLE, ::SUPERSAMPLE, 0])
    light = _surface(painter, np.asarray(painter.canvas.colours).astype(np.float32), codes)
    rows, columns = train_ids.shape
    light = light.reshape(rows, SUPERSAMPLE, columns, SUPERSAMPLE, 3).mean(axis=(1, 3))
    exposure = 1.0 + setting.flicker * float(painter.rng.standard_normal())
    grey = light.mean(axis=-1, keepdims=True)
    vivid = grey + np.float32(setting.saturation) * (light - grey)
    seen = vivid.clip(0, None) * np.float32(exposure)
    # Towards the corners it darkens.
    down, across = (np.linspace(-1, 1, side, dtype=np.float32) ** 2 for side in train_ids.shape)
    seen *= (1.0 - setting.vignette * (down[:, None] + across[None, :]) / 2.0)[..., None]
    exposed = Image.fromarray(seen.clip(0, 255).astype(np.uint8))
    if setting.blur > 0:
        exposed = exposed.filter(ImageFilter.GaussianBlur(setting.blur))
    noise = painter.rng.standard_normal((rows, columns, 3), dtype=np.float32)
    noisy = np.asarray(exposed) + setting.noise * noise
    return noisy.clip(0, 255).astype(np.uint8), train_ids

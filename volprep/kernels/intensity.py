"""Intensity changes of single sections, one after the other while the section is in cache.

A program is a list of steps in three parallel arrays: what to do and where
(`steps`), with which numbers (`numbers`), and a pool of filter weights. Each
section goes through every step that covers it before the next section begins.
Noise is a pure function of (seed, voxel number), so the result depends on
neither threads nor order.
"""

from __future__ import annotations

import numpy as np
from numba import types

from volprep.kernels.compiling import kernel, part

__all__ = [
    "BAND",
    "CLIPPED",
    "FILL",
    "FILTER",
    "INVERTED",
    "LEVELS",
    "NOISE",
    "NORMAL",
    "POISSON",
    "SECTIONS",
    "UNIFORM",
    "filter_through_sections",
    "run_sections",
]

LEVELS, NOISE, FILTER, BAND, FILL = 0, 1, 2, 3, 4
UNIFORM, NORMAL, POISSON = 0, 1, 2
INVERTED, CLIPPED = 1, 2

# Nothing that rounds otherwise: a sample must be the same bits whether its code was compiled here
# or came from the cache. No 'nnan': a NaN voxel must stay harmless where it becomes an index.
_FAST = {"nsz"}


@part(fastmath=_FAST, inline="always")
def _log2(x):  # type: ignore[no-untyped-def]
    """Base 2 logarithm of a positive normal float32, to 2e-6."""
    bits = np.float32(x).view(np.int32)
    exponent = np.float32((bits >> np.int32(23)) - np.int32(127))
    mantissa = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
    t = mantissa - np.float32(1.5)
    p = np.float32(0.04392863) + t * np.float32(-0.0251232)
    p = np.float32(-0.07058968) + t * p
    p = np.float32(0.14171816) + t * p
    p = np.float32(-0.32063233) + t * p
    p = np.float32(0.96182123) + t * p
    return exponent + (np.float32(0.58496277) + t * p)


@part(fastmath=_FAST, inline="always")
def _power(u, gamma):  # type: ignore[no-untyped-def]
    """u**gamma for u in [0, 1] and gamma > 0, to 2e-5; branch-free, so that it runs in lanes."""
    tiny = np.float32(1e-30)
    y = _log2(u if u > tiny else tiny) * gamma
    y = y if y > np.float32(-126) else np.float32(-126)
    whole = np.floor(y)
    r = y - whole
    p = np.float32(0.05171774) + r * np.float32(0.01368398)
    p = np.float32(0.24162132) + r * p
    p = np.float32(0.69296955) + r * p
    p = np.float32(1.0000036) + r * p
    return p * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@part(fastmath=_FAST, error_model="numpy")
def _levels(section, numbers, low, span, mean):  # type: ignore[no-untyped-def]
    """Contrast about the mean, brightness about the low end, gamma between the ends.

    Gamma goes on straight beyond both ends: outliers keep their order and their distance, and
    nothing is pinned to an end unless it is clipped there.
    """
    contrast, brightness, gamma, flags = numbers[0], numbers[1], numbers[2], int(numbers[3])
    flat = section.reshape(-1)
    one = np.float32(1)
    # In double precision, so that a change by nothing is exactly none.
    gain = contrast * brightness
    offset = (mean - low - (mean - low) * contrast) * brightness + low - low * gain
    high = low + span
    if flags & INVERTED and gamma == 1.0:
        gain, offset = -gain, low + high - offset
    a, b, bottom, top = np.float32(gain), np.float32(offset), np.float32(low), np.float32(high)
    for n in range(flat.size):
        flat[n] = flat[n] * a + b
    if flags & CLIPPED:
        for n in range(flat.size):
            value = flat[n]
            value = bottom if value < bottom else value
            flat[n] = top if value > top else value
    if gamma == 1.0:
        return
    power, width, inverse = np.float32(gamma), np.float32(span), np.float32(1.0 / span)
    base, scale = (top, -width) if flags & INVERTED else (bottom, width)
    for n in range(flat.size):
        u = (flat[n] - bottom) * inverse
        inside = _power(u if u < one else one, power)
        bent = inside if u < one else one + power * (u - one)
        flat[n] = base + scale * (bent if u > np.float32(0) else u)


@part(inline="always")
def _bits(number, seed, seed2):  # type: ignore[no-untyped-def]
    """32 well mixed bits of a voxel number and two 32-bit seeds (xorshift-multiply rounds)."""
    h = np.uint32(np.uint32(np.uint32(number) * np.uint32(0x9E3779B1)) ^ seed)
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x7FEB352D))
    h = np.uint32(h ^ (h >> np.uint32(15)) ^ seed2)
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ (h >> np.uint32(16)))


@part(inline="always")
def _uniform(bits):  # type: ignore[no-untyped-def]
    """Uniform in (-1, 1), never the ends."""
    return (np.float32(bits >> np.uint32(9)) + np.float32(0.5)) * np.float32(
        2 / 8388608
    ) - np.float32(1)


@part(fastmath=_FAST, inline="always")
def _normal(bits):  # type: ignore[no-untyped-def]
    """A standard normal number, to 0.003: x times a polynomial in sqrt(-log2(1 - x**2))."""
    x = _uniform(bits)
    # Near x = 0 the logarithm's error may have either sign, and no root of that may be taken.
    t = -_log2((np.float32(1) - x) * (np.float32(1) + x))
    s = np.sqrt(t if t > np.float32(0) else np.float32(0))
    p = np.float32(8.39127562e-03) + s * np.float32(-4.29847917e-04)
    p = np.float32(-5.94551401e-02) + s * p
    p = np.float32(1.59162478e-01) + s * p
    p = np.float32(7.68606898e-02) + s * p
    p = np.float32(4.95510491e-02) + s * p
    return x * (np.float32(1.25072236) + s * p)


@part(fastmath=_FAST)
def _add_uniform(row, base, size, seed, seed2):  # type: ignore[no-untyped-def]
    for i in range(row.size):
        row[i] += size * _uniform(_bits(base + np.uint32(i), seed, seed2))


@part(fastmath=_FAST)
def _add_normal(row, base, size, seed, seed2):  # type: ignore[no-untyped-def]
    for i in range(row.size):
        row[i] += size * _normal(_bits(base + np.uint32(i), seed, seed2))


@part()
def _poisson(mean, bits):  # type: ignore[no-untyped-def]
    """A Poisson number: by inversion for small means, by Cornish-Fisher for large ones."""
    if mean >= 20.0:
        z = np.float64(_normal(bits))
        return max(0.0, np.floor(mean + np.sqrt(mean) * z + (z * z - 1.0) / 6.0 + 0.5))
    left = (np.float64(bits) + 0.5) / 4294967296.0
    chance = np.exp(-mean)
    count = 0
    while left > chance and count < 200:
        left -= chance
        count += 1
        chance *= mean / count
    return np.float64(count)


@part()
def _count_photons(row, base, photons, seed, seed2, low, span):  # type: ignore[no-untyped-def]
    """Voxels at the low end and below have no photons to count, and stay as they are."""
    for i in range(row.size):
        mean = np.float64(row[i] - low) / span * photons
        if mean > 0:
            count = _poisson(mean, _bits(base + np.uint32(i), seed, seed2))
            row[i] = np.float32(low + span * count / photons)


@part()
def _noise(section, z, box, kind, amount, seed, seed2, low, span):  # type: ignore[no-untyped-def]
    """Add noise inside the box."""
    size = np.float32(amount * span)
    height, width = section.shape
    for j in range(box[2], box[3]):
        row = section[j, box[4] : box[5]]
        base = np.uint32((z * height + j) * width + box[4])
        if kind == UNIFORM:
            _add_uniform(row, base, size, seed, seed2)
        elif kind == NORMAL:
            _add_normal(row, base, size, seed, seed2)
        else:
            _count_photons(row, base, amount, seed, seed2, low, span)


@part()
def _copy_row(source, out):  # type: ignore[no-untyped-def]
    """A loop, since numba compiles a slice that is set from an array for three seconds."""
    for i in range(source.size):
        out[i] = source[i]


@part(fastmath=_FAST)
def _filter_rows(section, box, starts, weights, scratch):  # type: ignore[no-untyped-def]
    """Along y: row j of the box becomes the weighted sum of the rows from starts[j] on."""
    y0, y1, x0, x1 = box[2], box[3], box[4], box[5]
    for j in range(y1 - y0):
        _copy_row(section[y0 + j, x0:x1], scratch[j])
    for j in range(y1 - y0):
        out = section[y0 + j, x0:x1]
        first = scratch[starts[j]]
        weight = weights[0, j]
        for i in range(x1 - x0):
            out[i] = first[i] * weight
        for q in range(1, weights.shape[0]):
            source = scratch[min(starts[j] + q, y1 - y0 - 1)]
            weight = weights[q, j]
            if weight != 0:
                for i in range(x1 - x0):
                    out[i] += source[i] * weight


@part(fastmath=_FAST)
def _filter_columns(section, box, starts, weights, scratch):  # type: ignore[no-untyped-def]
    """Along x, by the same rule; through a transposed copy, so that the inner loop is straight."""
    y0, y1, x0, x1 = box[2], box[3], box[4], box[5]
    height, width = y1 - y0, x1 - x0
    for j0 in range(0, height, 16):
        for i in range(width):
            for j in range(j0, min(j0 + 16, height)):
                scratch[i, j] = section[y0 + j, x0 + i]
    result = scratch[width : 2 * width]
    for i in range(width):
        out = result[i]
        out[:height] = 0
        for q in range(weights.shape[0]):
            source = scratch[min(starts[i] + q, width - 1)]
            weight = weights[q, i]
            if weight != 0:
                for j in range(height):
                    out[j] += source[j] * weight
    for j0 in range(0, height, 16):
        for i in range(width):
            for j in range(j0, min(j0 + 16, height)):
                section[y0 + j, x0 + i] = result[i, j]


@kernel(fastmath=_FAST)
def filter_through_sections(volume, box, starts, weights, scratch):  # type: ignore[no-untyped-def]
    """Filter along z inside a box.

    Parameters
    ----------
    volume : float32 (D, H, W), changed in place
    box : int64 (6,), z0, z1, y0, y1, x0, x1
    starts : int64 (n,), weights : float32 (taps, n)
        Section k of the box becomes the sum over q of ``weights[q, k]`` times
        section ``starts[k] + q`` of the box.
    scratch : float32 (n or more, W or more)
    """
    z0, z1, x0, x1 = box[0], box[1], box[4], box[5]
    for j in range(box[2], box[3]):
        for k in range(z1 - z0):
            _copy_row(volume[z0 + k, j, x0:x1], scratch[k])
        for k in range(z1 - z0):
            out = volume[z0 + k, j, x0:x1]
            out[:] = 0
            for q in range(weights.shape[0]):
                source = scratch[min(starts[k] + q, z1 - z0 - 1)]
                weight = weights[q, k]
                if weight != 0:
                    for i in range(x1 - x0):
                        out[i] += source[i] * weight


@part(fastmath=_FAST)
def _section_mean(section):  # type: ignore[no-untyped-def]
    flat = section.reshape(-1)
    total = 0.0
    for n in range(flat.size):
        total += flat[n]
    return total / flat.size


@part()
def _band(section, normal_y, normal_x, offset, half_width):  # type: ignore[no-untyped-def]
    """Fill |normal . (y, x) - offset| <= half_width with the mean of the section."""
    height, width = section.shape
    mean = np.float32(_section_mean(section))
    for j in range(height):
        rest = offset - normal_y * j
        if normal_x == 0.0:
            first, last = (0, width - 1) if abs(rest) <= half_width else (0, -1)
        else:
            left = (rest - half_width) / normal_x
            right = (rest + half_width) / normal_x
            first = int(np.ceil(max(min(left, right), 0.0)))
            last = int(np.floor(min(max(left, right), width - 1.0)))
        for i in range(first, last + 1):
            section[j, i] = mean


@kernel()
def run_sections(volume, steps, numbers, starts, weights, scratch, scale):  # type: ignore[no-untyped-def]
    """Take each section through the steps that cover it.

    Parameters
    ----------
    volume : float32 (D, H, W), C-contiguous, changed in place
    steps : int64 (n, 11)
        Code; z0, z1, y0, y1, x0, x1; then for NOISE the kind and two seeds,
        for FILTER the axis (1 or 2), the number of taps and where its tables
        begin in the pools.
    numbers : float64 (n, 4)
        LEVELS: contrast, brightness, gamma, INVERTED and CLIPPED added up.
        NOISE: amplitude as a fraction of the span; POISSON: photons at its top.
        BAND: normal y, normal x, offset, half width. FILL: fraction of the span.
    starts : int64 (m,), weights : float32 (w,)
        Pools of filter tables, as in `filter_through_sections`.
    scratch : float32 (2 * max(H, W), max(H, W))
    scale : float64 (3,)
        Low end, span and mean of the values. A span of 0 leaves levels and noise out.
    """
    low, span, mean = scale[0], scale[1], scale[2]
    for z in range(volume.shape[0]):
        section = volume[z]
        for n in range(steps.shape[0]):
            box = steps[n, 1:7]
            if z < box[0] or z >= box[1]:
                continue
            code = steps[n, 0]
            if code == LEVELS:
                if span > 0:
                    _levels(section, numbers[n], low, span, mean)
            elif code == NOISE:
                if span > 0:
                    _noise(
                        section, z, box, steps[n, 7], numbers[n, 0],
                        np.uint32(steps[n, 8]), np.uint32(steps[n, 9]), low, span,
                    )  # fmt: skip
            elif code == FILTER:
                axis, taps = steps[n, 7], steps[n, 8]
                length = box[2 * axis + 1] - box[2 * axis]
                first = starts[steps[n, 9] : steps[n, 9] + length]
                table = weights[steps[n, 10] : steps[n, 10] + taps * length]
                matrix = table.reshape((taps, length))
                if axis == 1:
                    _filter_rows(section, box, first, matrix, scratch)
                else:
                    _filter_columns(section, box, first, matrix, scratch)
            elif code == BAND:
                _band(section, numbers[n, 0], numbers[n, 1], numbers[n, 2], numbers[n, 3])
            else:
                value = np.float32(low + span * numbers[n, 0])
                section[box[2] : box[3], box[4] : box[5]] = value


#: The types of what `run_sections` is called with.
SECTIONS = (
    types.float32[:, :, ::1],
    types.int64[:, ::1],
    types.float64[:, ::1],
    types.int64[::1],
    types.float32[::1],
    types.float32[:, ::1],
    types.float64[::1],
)

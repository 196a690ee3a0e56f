"""Runs inside Blender: what computes the pictures, and on which device."""

import bpy

from render.spec import Cycles, Pictures


def set_engine(scene: bpy.types.Scene, pictures: Pictures, device: str, threads: int) -> str:
    """Has the scene rendered as `pictures` say; the name of the device that will do it, as in VIEWS.device.

    `device`: as in render.spec.Request.
    """
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    _set_cycles(scene.cycles, pictures.cycles)
    return "CPU"


def _set_cycles(cycles, settings: Cycles) -> None:
    cycles.seed = 0
    cycles.samples = settings.samples
    cycles.use_adaptive_sampling = True
    cycles.adaptive_min_samples = settings.min_samples
    cycles.adaptive_threshold = settings.noise_threshold
    cycles.sampling_pattern = "TABULATED_SOBOL"
    cycles.use_light_tree = False
    cycles.use_denoising = settings.denoise
    cycles.denoiser = "OPENIMAGEDENOISE"
    cycles.denoising_prefilter = "NONE"
    cycles.denoising_quality = "FAST"
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    # One bounce is enough for the eye; glass needs a way in and a way out.
    cycles.max_bounces = cycles.transmission_bounces = 4
    cycles.diffuse_bounces = cycles.glossy_bounces = 1
    cycles.volume_bounces = 0
    cycles.transparent_max_bounces = 16
    cycles.caustics_reflective = cycles.caustics_refractive = False

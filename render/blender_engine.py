"""Runs inside Blender: what computes the pictures, and on which device."""

import bpy
import gpu

from render.devices import use_one
from render.spec import AssetError, Cycles, Pictures

ADAPTIVE_STEP = 16  # samples between two looks at how noisy a pixel is (intern/cycles/scene/integrator.cpp)


def set_engine(scene: bpy.types.Scene, pictures: Pictures, device: str, threads: int) -> str:
    """Has the scene rendered as `pictures` say; the name of the device that will do it, as in VIEWS.device.

    `device`: as in render.spec.Request; EEVEE takes the GPU that OpenGL gives it. Raises AssetError("no_device").
    """
    set_threads(scene, threads)
    if pictures.engine == "eevee":
        _set_eevee(scene, pictures.cycles.samples)
        return f"EEVEE: {_opengl_renderer()}"
    scene.render.engine = "CYCLES"
    _set_cycles(scene.cycles, pictures.cycles)
    if device == "cpu":
        scene.cycles.device = "CPU"
        return "CPU"
    name = _select(device)
    scene.cycles.device = "GPU"
    # Open Image Denoise runs on GPUs as well. OptiX's denoiser is left alone: it has no cards but NVIDIA's, and other pictures.
    scene.cycles.denoising_use_gpu = True
    return f"{device.upper()}: {name}"


def set_threads(scene: bpy.types.Scene, threads: int) -> None:
    """With a single one, Blender's main thread would spin while it waits, which costs as much again: there are two at least."""
    scene.render.threads_mode, scene.render.threads = "FIXED", max(2, threads)


def _select(device: str) -> str:
    """Has Cycles use the first GPU of a backend and nothing else; its name. Raises AssetError("no_device")."""
    backend = device.upper()
    cycles = bpy.context.preferences.addons["cycles"].preferences
    known = [name for name, *_ in cycles.get_device_types(bpy.context) if name != "NONE"]
    if backend not in known:
        raise AssetError("no_device", f"this Blender was built without {backend}; it has {', '.join(known)}")
    cycles.compute_device_type = backend
    cycles.get_device_list(backend)  # fills `devices`
    chosen = use_one(cycles.devices, backend)
    if chosen is None:
        raise AssetError("no_device", f"Cycles finds no GPU for {backend}")
    assert [one.id for one in cycles.devices if one.use] == [chosen.id]
    return chosen.name


def _set_eevee(scene: bpy.types.Scene, samples: int) -> None:
    """EEVEE as near to our Cycles as it comes: shadows, no light that is reflected from one surface to another.
    https://docs.blender.org/api/4.5/bpy.types.SceneEEVEE.html"""
    scene.render.engine = "BLENDER_EEVEE" if bpy.app.version >= (5, 0, 0) else "BLENDER_EEVEE_NEXT"
    eevee = scene.eevee
    eevee.taa_render_samples = samples
    eevee.use_shadows = True
    eevee.use_raytracing = False


def _opengl_renderer() -> str:
    """What OpenGL calls itself. In the background it is there from the first picture on, so that one is made, of nothing."""
    try:
        return gpu.platform.renderer_get()
    except SystemError:
        scene = bpy.data.scenes.new("nothing")
        scene.camera = bpy.data.objects.new("nothing", bpy.data.cameras.new("nothing"))
        _set_eevee(scene, 1)
        scene.render.resolution_x = scene.render.resolution_y = 8
        bpy.ops.render.render(scene=scene.name)
        return gpu.platform.renderer_get()


def _set_cycles(cycles, settings: Cycles) -> None:
    cycles.seed = 0
    cycles.samples = settings.samples
    cycles.use_adaptive_sampling = settings.samples > ADAPTIVE_STEP
    cycles.adaptive_threshold = settings.noise_threshold
    cycles.sampling_pattern = "BLUE_NOISE"  # the denoiser likes it better than others
    cycles.use_light_tree = False
    cycles.use_denoising = settings.denoise
    cycles.denoiser = "OPENIMAGEDENOISE"
    # Prefiltering costs more than the samples; normals as a guide cost time and, unfiltered, some accuracy too.
    cycles.denoising_prefilter = "NONE"
    cycles.denoising_input_passes = "RGB_ALBEDO"
    cycles.denoising_quality = "FAST"
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    # More bounces cost next to nothing, as most rays are out in the sky by then; with one, corners are too dark and mirrors show
    # black holes.
    cycles.max_bounces = cycles.transmission_bounces = 8
    cycles.diffuse_bounces = cycles.glossy_bounces = 4
    cycles.volume_bounces = 0
    cycles.transparent_max_bounces = 16
    cycles.caustics_reflective = cycles.caustics_refractive = False

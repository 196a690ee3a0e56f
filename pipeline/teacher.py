"""Teachers at work: frozen CLIP models that turn pictures and texts into vectors as fast as the device can.

    picture --prepare--> uint8 on the CPU --staged--> uint8 on the device --pixels--> float --model--> vector

Several threads may use one teacher at once, so that one prepares while another's forward pass runs; forward passes take turns.
"""

import io
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from open_clip.model import convert_weights_to_lp
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import CustomTransformer, Transformer
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import Compose, Normalize, ToTensor
from torchvision.transforms.functional import pil_to_tensor

from pipeline.model import Loaded, load
from pipeline.stage import ObjectError
from pipeline.weights import TeacherError

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16"]

IMAGES_ON_CPU, TEXTS_ON_CPU = 16, 32  # per forward pass: larger ones are no faster, and what does not fill one is lost
SIZES_ON_GPU = (8, 16, 32, 64, 128, 256)  # of forward passes, of which the best is found by trying; calls of 768 pictures fill all
NEAR_BEST = 0.97  # share of the best rate that a smaller pass, which wastes less when it is padded, must reach
MEMORY_SHARE = 0.8  # of the GPU that trying may fill
TRIALS = 3


class Teacher:
    """A teacher that is loaded and ready.

    device: "auto" takes a GPU if there is one; "cuda" without a GPU is an error.
    dtype: of products (their sums, the residual stream and the norms are always float32). "auto" is bfloat16 on a GPU and
    float32 on a CPU.
    images_per_forward, texts_per_forward: every forward pass has exactly this many, the last one of a call is padded, so that an
    embedding does not depend on what else was asked for. None: on a GPU the best is found by trying, at the first use.
    compile: by torch.compile, which takes minutes at the first use and needs a C++ compiler.
    load: what makes the model of its name.
    """

    def __init__(
        self,
        teacher: str,
        *,
        device: Device = "auto",
        dtype: Dtype = "auto",
        images_per_forward: int | None = None,
        texts_per_forward: int | None = None,
        compile: bool = False,
        load: Callable[[str], Loaded] = load,
    ):
        self.device = _torch_device(device)
        on_gpu = self.device.type == "cuda"
        self.dtype = dtype if dtype != "auto" else "bfloat16" if on_gpu else "float32"
        loaded = load(teacher)
        self.identity, self.tokenizer, model = loaded.identity, loaded.tokenizer, loaded.model.eval().requires_grad_(False)
        if self.dtype == "bfloat16":
            _to_bfloat16(model)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        *shape, to_tensor, normalize = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False).transforms
        assert isinstance(to_tensor, ToTensor) and isinstance(normalize, Normalize)  # what `pixels` does in their place
        self._shaped = Compose(shape)
        self._mean, self._std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (normalize.mean, normalize.std))
        encoders = self._encode_images, self._encode_texts
        self.see, self.read = (torch.compile(one, dynamic=False) if compile else one for one in encoders)
        self._asked = images_per_forward, texts_per_forward
        self._turn, self._tokenizing = threading.Lock(), threading.Lock()  # fast tokenizers are not made for threads
        self._copies = torch.cuda.Stream() if on_gpu else None

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def dim(self) -> int:
        return self.identity.dim

    @cached_property
    def images_per_forward(self) -> int:
        """Pictures in each forward pass."""
        example = self.prepare(np.random.default_rng(0).integers(256, size=(224, 224, 3), dtype=np.uint8))
        return self._asked[0] or (self._best_size(self._encode_images, example) if self._copies else IMAGES_ON_CPU)

    @cached_property
    def texts_per_forward(self) -> int:
        """Texts in each forward pass."""
        [example] = self.tokens(["a photo of a mug"])
        return self._asked[1] or (self._best_size(self._encode_texts, example) if self._copies else TEXTS_ON_CPU)

    def prepare(self, image: bytes | UInt8[np.ndarray, "h w c"]) -> UInt8[torch.Tensor, "3 s s"]:
        """One picture as the model wants it, but for its scale: laid on the teacher's background, resized and cropped by
        open_clip's own transform. `image`: an encoded file, or sRGB with or without straight alpha.

        Raises ObjectError("image_unreadable") for bytes that are no picture.
        """
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else _decoded(image)
        if picture.mode.startswith("I"):  # 16 bits a channel, of which Pillow keeps the upper 8 in colour pictures alone
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.has_transparency_data:
            canvas = Image.new("RGBA", picture.size, (*self.identity.background, 255))
            canvas.alpha_composite(picture.convert("RGBA"))
            picture = canvas
        return pil_to_tensor(self._shaped(picture.convert("RGB")))

    def pixels(self, prepared: UInt8[torch.Tensor, "n 3 s s"]) -> Float32[torch.Tensor, "n 3 s s"]:
        """Prepared pictures as the model sees them: what open_clip's ToTensor and Normalize make of them."""
        scaled = prepared.to(torch.float32, memory_format=torch.channels_last).div_(255)
        return scaled.sub_(self._mean).div_(self._std)

    def encode_images(self, images: Sequence[bytes | UInt8[np.ndarray, "h w c"]]) -> Float32[np.ndarray, "n d"]:
        """Unit-length embeddings of pictures, see `prepare`."""
        return unit(self.image_vectors([self.prepare(image) for image in images]))[0]

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Unit-length embeddings of texts; what is longer than the model's context is cut."""
        return unit(self.text_vectors(texts))[0]

    def image_vectors(self, prepared: Sequence[UInt8[torch.Tensor, "3 s s"]]) -> Float32[np.ndarray, "n d"]:
        """Embeddings of pictures that went through `prepare`, of whatever length the model gives them."""
        return self._vectors(self.see, prepared, self.images_per_forward)

    def text_vectors(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Embeddings of texts, of whatever length the model gives them; what is longer than the model's context is cut."""
        return self._vectors(self.read, self.tokens(texts), self.texts_per_forward)

    def tokens(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Each text as the model wants it."""
        with self._tokenizing:
            return list(self.tokenizer(list(texts))) if len(texts) else []

    def _encode_images(self, prepared: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(self.pixels(prepared), normalize=False)

    def _encode_texts(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model.encode_text(tokens, normalize=False)

    def _vectors(self, encode: Callable, inputs: Sequence[torch.Tensor], size: int) -> Float32[np.ndarray, "n d"]:
        if not inputs:
            return np.zeros((0, self.dim), np.float32)
        batches = [self.staged(inputs[i : i + size], size) for i in range(0, len(inputs), size)]
        with self._turn:
            vectors = self.forward(encode, batches)[: len(inputs)].to("cpu", non_blocking=True)
            launched = torch.cuda.current_stream().record_event() if self._copies else None
        if launched:  # the next call's passes may be launched meanwhile, so that the GPU goes from one to the other
            launched.synchronize()
        return vectors.numpy()

    def staged(self, inputs: Sequence[torch.Tensor], size: int) -> torch.Tensor:
        """`size` inputs on the device: the last pass of a call is filled up with copies of its first input."""
        filled = [*inputs, *[inputs[0]] * (size - len(inputs))]
        batch = torch.stack([one.movedim(0, -1) for one in filled]).movedim(-1, 1)  # channels last, as pictures come from Pillow
        if not self._copies:
            return batch
        with torch.cuda.stream(self._copies):  # while a forward pass runs
            return batch.pin_memory().to(self.device, non_blocking=True)

    def forward(self, encode: Callable, batches: Sequence[torch.Tensor]) -> Float32[torch.Tensor, "n d"]:
        """The forward passes of one call, launched on the device; their inputs are `staged`."""
        if self._copies:
            torch.cuda.current_stream().wait_stream(self._copies)
            for batch in batches:
                batch.record_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            return torch.cat([encode(batch) for batch in batches]).float()

    def _best_size(self, encode: Callable, example: torch.Tensor) -> int:
        rates: dict[int, float] = {}
        total = torch.cuda.get_device_properties(self.device).total_memory
        for size in SIZES_ON_GPU:
            try:
                rates[size] = self.rate(encode, example, size)
            except torch.cuda.OutOfMemoryError:
                if not rates:
                    raise
                break
            if torch.cuda.max_memory_reserved() > MEMORY_SHARE * total:
                break
        torch.cuda.empty_cache()
        return smallest_near_best(rates)

    def rate(self, encode: Callable, example: torch.Tensor, size: int, trials: int = TRIALS) -> float:
        """Inputs per second of bare forward passes of `size`: the best of some trials, after one that is not counted."""
        batch = self.staged([example] * size, size)
        seconds = []
        with self._turn:
            for _ in range(1 + trials):
                began = time.perf_counter()
                self.forward(encode, [batch]).cpu()
                seconds.append(time.perf_counter() - began)
        return size / min(seconds[1:])


def smallest_near_best(rates: dict[int, float]) -> int:
    """The smallest size whose rate is nearly that of the best."""
    return min(size for size, rate in rates.items() if rate >= NEAR_BEST * max(rates.values()))


def unit(vectors: Float32[np.ndarray, "n d"]) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, "n"]]:
    """Vectors brought to unit length, and the lengths they had; NaN for what has no direction."""
    lengths = np.linalg.norm(vectors, axis=1)
    with np.errstate(invalid="ignore"):
        return vectors / lengths[:, None], lengths


def _to_bfloat16(model: torch.nn.Module) -> None:
    """Hold the weights of products in bfloat16, so that no forward pass has to convert them, and the rest in float32.

    open_clip's transformers take over the dtype of these weights for what goes through them; it is made float32 at their entrance.
    """
    convert_weights_to_lp(model, torch.bfloat16)
    for module in model.modules():
        if isinstance(module, Transformer | CustomTransformer):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))


def _torch_device(device: Device) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise TeacherError('device "cuda" was asked for, but this machine shows no GPU: use device "cpu", or "auto"')
    return torch.device("cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda")


def _decoded(content: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
        return picture
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ObjectError("image_unreadable", f"a picture of {len(content)} bytes cannot be decoded: {error}") from error

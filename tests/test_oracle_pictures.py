"""DuoduoCLIP's pictures against the parity data: same pixels for each crop that the file names."""

from oracle import Oracle
from trainer.card import ViewInput
from trainer.pictures import pixels

TOLERANCE = 2e-5


def test_oracle_duoduo_preprocess(oracles):
    oracle = Oracle.read(oracles, "duoduo_preprocess")
    config = oracle.config
    wanted = ViewInput(
        size=config["size"], crop=config["size"] - config["crop"], mean=tuple(config["mean"]), std=tuple(config["std"])
    )
    picture = oracle.arrays["in/image_uint8"][None, None]
    for number, offset in enumerate(config["offsets"]):
        made = pixels(picture, wanted, tuple(offset))[0, 0]
        oracle.compare(f"out/pixels_stride8_{number}", made[:, ::8, ::8], TOLERANCE)
        oracle.compare(f"out/mean_{number}", made.mean(dim=(1, 2)), TOLERANCE)
    assert not oracle.left()

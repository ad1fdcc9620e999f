"""The background photographs: which they are, whose, under which licence, and reading them with their checksums checked."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from sslrob.errors import SslrobError

Split = Literal["train", "test"]

CC0 = "CC0-1.0"
PUBLIC_DOMAIN = "public domain"
NO_RESTRICTIONS = "no known copyright restrictions"


@dataclass(frozen=True)
class Photograph:
    """One photograph as scikit-image 0.18.3 distributes it; licence and source are those of its docstring there."""

    file: str
    split: Split
    licence: str
    author: str
    source: str
    sha256: str


PHOTOGRAPHS = (
    Photograph(
        "astronaut.png",
        "train",
        PUBLIC_DOMAIN,
        "NASA",
        "https://flic.kr/p/r9qvLn",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    Photograph(
        "brick.png",
        "train",
        CC0,
        "CC0Textures",
        "https://cc0textures.com/view.php?tex=Bricks25",
        "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    ),
    Photograph(
        "camera.png",
        "train",
        CC0,
        "Lav Varshney",
        "https://github.com/scikit-image/scikit-image/issues/3927",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    ),
    Photograph(
        "cell.png",
        "train",
        CC0,
        "Paul Müller and others",
        "https://doi.org/10.1364/OE.26.010729",
        "8d23a7fb81f7cc877cd09f330357fc7f595651306e84e17252f6e0a1b3f61515",
    ),
    Photograph(
        "chelsea.png",
        "train",
        CC0,
        "Stefan van der Walt",
        "scikit-image",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    Photograph(
        "clock_motion.png",
        "train",
        PUBLIC_DOMAIN,
        "Stefan van der Walt",
        "scikit-image",
        "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
    ),
    Photograph(
        "grass.png",
        "train",
        CC0,
        "linolafett",
        "https://www.deviantart.com/linolafett/art/Grass-01-434853879",
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    ),
    Photograph(
        "hubble_deep_field.jpg",
        "train",
        PUBLIC_DOMAIN,
        "NASA",
        "http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    ),
    Photograph(
        "rocket.jpg",
        "train",
        PUBLIC_DOMAIN,
        "SpaceX",
        "https://www.flickr.com/photos/spacexphotos/16511594820/",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
    Photograph(
        "coffee.png",
        "test",
        CC0,
        "Rachel Michetti, courtesy of Pikolo Espresso Bar",
        "scikit-image",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    Photograph(
        "coins.png",
        "test",
        NO_RESTRICTIONS,
        "Brooklyn Museum Collection",
        "https://www.brooklynmuseum.org/opencollection/archives/image/51611",
        "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    ),
    Photograph(
        "gravel.png",
        "test",
        CC0,
        "CC0Textures",
        "https://cc0textures.com/view.php?tex=Gravel04",
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    ),
    Photograph(
        "ihc.png",
        "test",
        NO_RESTRICTIONS,
        "Center for Microscopy And Molecular Imaging (CMMI)",
        "scikit-image",
        "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    ),
    Photograph(
        "retina.jpg",
        "test",
        CC0,
        "Mikael Häggström",
        "https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg",
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    ),
    Photograph(
        "text.png",
        "test",
        PUBLIC_DOMAIN,
        "unnamed",
        "https://en.wikipedia.org/wiki/File:Corner.png",
        "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
    ),
)


def read_photographs(folder: Path, split: Split) -> dict[str, Image.Image]:
    """RGB photographs of one split by file name.

    Raises:
        SslrobError: a file is missing, or is not the one whose checksum the table holds.
    """
    photographs = {}
    for photograph in PHOTOGRAPHS:
        if photograph.split != split:
            continue
        path = folder / photograph.file
        if not path.is_file():
            raise SslrobError(
                f'no photograph "{path}"',
                hint="unzip the wheel of scikit-image 0.18.3 (pip download --no-deps --only-binary :all: --python-version 3.8 "
                "scikit-image==0.18.3) and give its folder skimage/data as --photos",
            )
        if hashlib.sha256(path.read_bytes()).hexdigest() != photograph.sha256:
            raise SslrobError(
                f'photograph "{path}" has another sha256 than "{photograph.sha256}"',
                hint="take it from the wheel of scikit-image 0.18.3; other releases hold other versions of some photographs",
            )
        with Image.open(path) as image:
            photographs[photograph.file] = image.convert("RGB")
    return photographs

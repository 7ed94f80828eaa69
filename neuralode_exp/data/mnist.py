"""Read MNIST and Fashion-MNIST. Each is published as four files.

LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document recognition, Proc. IEEE, 1998.
Xiao, Rasul & Vollgraf, Fashion-MNIST (arXiv 1708.07747).
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

from neuralode_exp.data.fetch import DataError, fetch, sha256
from neuralode_exp.data.idx import decode_idx
from neuralode_exp.data.images import Images, Split, hold_out


@dataclass(frozen=True)
class Published:
    """A set of images in four IDX files.

    Args:
        folder: its folder below the root of torchvision, which is also the name of torchvision's class.
        mean, std: mean and standard deviation of the training pixels, scaled to [0, 1].
        checksums: SHA-256 of the uncompressed files, for each accepted version of the set.
    """

    folder: str
    mean: float
    std: float
    checksums: tuple[dict[str, str], ...]


SETS = {
    "mnist": Published(
        "MNIST",
        0.1307,
        0.3081,
        (
            {
                "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            },
            {  # the 512-image sample in tests/assets/mnist-sample
                "train-images-idx3-ubyte": "474749e77fa4637e2746233debe49ff7778db253000b4d89964cd1508b89ef08",
                "train-labels-idx1-ubyte": "b9e55c745bed679c08b2ce1c50938b12531bb890f1f9423074923584c2ee7c9c",
                "t10k-images-idx3-ubyte": "022774e58a01fb2ee972c185d7e21dc96c313c6e97ea90beae35218adf180639",
                "t10k-labels-idx1-ubyte": "4bdb12c540d94f88aadd74e4761a3bf248918aa98b8df780700bfb8de529c7d6",
            },
        ),
    ),
    "fashion-mnist": Published(
        "FashionMNIST",
        0.2860,
        0.3530,
        (
            {
                "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            },
        ),
    ),
}


def load_mnist(
    root: str | Path,
    name: str = "mnist",
    *,
    train: int | None = None,
    validation: int = 5000,
    test: int = 10_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Images:
    """Load a set from its four IDX files, gzipped or not, in `root/MNIST/raw` or `root/FashionMNIST/raw`.

    The files of MNIST may also be in `root` itself. Their SHA-256 are checked before use. If a file is missing, all are
    fetched, see `fetch`.

    Args:
        root: the folder with the files.
        name: mnist or fashion-mnist.
        train: number of the remaining training images that are used, the first ones; None: all.
        validation: number of training images that are held out, the last of a random order; it may be 0.
        test: number of test images that are used, the first ones.
        seed: seed of the random order.
        device: device of all tensors.

    Raises:
        DataError: a file is missing and cannot be fetched, or has the wrong content.
        ValueError: `validation` leaves nothing to train on, or less than `train`.
    """
    published, root = SETS[name], Path(root).expanduser()
    contents = read_local_files(root, published)
    if contents is None:
        fetch(root / published.folder / "raw", published.checksums[0], published.folder)
        contents = read_local_files(root, published)
    assert contents is not None  # `fetch` writes all files or raises
    files = {name: decode_idx(content) for name, content in contents.items()}

    def split(prefix: str) -> Split:
        images, labels = files[f"{prefix}-images-idx3-ubyte"], files[f"{prefix}-labels-idx1-ubyte"]
        return Split(images[:, None].to(device), labels.long().to(device))

    for_training, held_out = hold_out(split("train"), validation, seed)
    if train is not None and not 0 < train <= (left := len(for_training.labels)):
        raise ValueError(
            f"`train` must be from 1 to the {left} images that are not held out for validation, got {train}"
        )
    return Images(
        train=Split(*(part[:train] for part in for_training)),
        validation=held_out,
        test=Split(*(part[:test] for part in split("t10k"))),
        classes=10,
        mean=torch.full((1, 1, 1), 255 * published.mean, device=device),
        std=torch.full((1, 1, 1), 255 * published.std, device=device),
    )


def read_local_files(root: Path, published: Published) -> dict[str, bytes] | None:
    """Return the contents of the four files of an accepted version of a set, or None if one is missing.

    Raises:
        DataError: a file has the wrong content.
    """
    names, raw = published.checksums[0], root / published.folder / "raw"
    folders = [root, raw] if published.folder == "MNIST" else [raw]
    paths = {name: path for name in names if (path := _find(folders, name))}
    if len(paths) < len(names):
        return None
    contents = {name: _read(path) for name, path in paths.items()}
    digests = {name: sha256(content) for name, content in contents.items()}
    # The version that most of the files belong to, or the first one if no file fits any.
    expected = max(published.checksums, key=lambda known: len(known.items() & digests.items()))
    for name, path in paths.items():
        if digests[name] != expected[name]:
            raise DataError(
                f"{path} must have the SHA-256 {expected[name]}, got {digests[name]}; delete the file, "
                "and the next run fetches it again"
            )
    return contents


def _find(folders: list[Path], name: str) -> Path | None:
    candidates = [folder / file for file in (name, f"{name}.gz") for folder in folders]
    return next((path for path in candidates if path.is_file()), None)


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be decompressed ({error}); delete it to have it fetched") from error

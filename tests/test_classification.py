"""Image folders, the linear head, ranks and top-k."""

import numpy as np
import pytest
import torch
from PIL import Image

from sslrob.builtin.classification import Classification, LinearClassifier
from sslrob.errors import SslrobError
from sslrob.testing import ToyBackbone, check_task, check_victim

TASK = Classification()


@pytest.fixture
def root(tmp_path):
    """Two images each of three classes, one in a folder of its own."""
    rng = np.random.default_rng(0)
    for path in ("bird/1.png", "bird/2.png", "cat/a.png", "cat/more/b.png", "dog/x.jpg", "dog/y.png"):
        file = tmp_path / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(file)
    return tmp_path / "data"


def dataset(root, *, classes=(), format="imagefolder", **settings):
    return TASK.dataset(root, format=format, classes=classes, settings=settings)


def test_ids_labels_and_classes_come_from_the_folders(root):
    found = dataset(root)
    assert found.ids == ("bird/1.png", "bird/2.png", "cat/a.png", "cat/more/b.png", "dog/x.jpg", "dog/y.png")
    assert found.classes == ("bird", "cat", "dog")
    assert [found[i].target for i in range(len(found))] == [0, 0, 1, 1, 2, 2]
    assert [found[i].id for i in range(len(found))] == list(found.ids)


def test_the_zoos_classes_say_which_label_is_which(root):
    found = dataset(root, classes=("dog", "fox", "cat", "bird"))
    assert [found[i].target for i in range(len(found))] == [3, 3, 2, 2, 0, 0]


def test_pixels_are_those_of_the_file(root):
    pixels = np.asarray(Image.open(root / "bird" / "1.png"))
    image = dataset(root)[0].image
    assert image.shape == (3, 12, 16)
    assert image.dtype == torch.float32
    assert torch.equal((image * 255).round().to(torch.uint8).permute(1, 2, 0), torch.from_numpy(pixels.copy()))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA", "CMYK"])
def test_every_kind_of_image_becomes_rgb(root, mode):
    (root / "bird" / "1.png").unlink()
    Image.new("RGB", (16, 12), (200, 200, 200)).convert(mode).save(root / "bird" / "1.tif")
    sample = dataset(root)[0]
    assert sample.id == "bird/1.tif"
    assert sample.image.shape == (3, 12, 16)
    if mode not in ("1", "CMYK"):
        assert float(sample.image.mean()) == pytest.approx(200 / 255, abs=0.01)


def test_resize_and_crop(root):
    assert dataset(root, resize=6)[0].image.shape == (3, 6, 8)
    assert dataset(root, resize=24, crop=20)[0].image.shape == (3, 20, 20)
    centre = dataset(root, crop=8)[0].image
    assert torch.equal(centre, dataset(root)[0].image[:, 2:10, 4:12])
    resized = dataset(root, resize=24)[0].image
    assert ((resized >= 0) & (resized <= 1)).all()


def test_the_fingerprint_changes_with_the_data(root):
    marks = [dataset(root).fingerprint, dataset(root, resize=6).fingerprint, dataset(root, classes=("dog", "cat", "bird")).fingerprint]
    (root / "dog" / "y.png").rename(root / "dog" / "z.png")
    marks.append(dataset(root).fingerprint)
    Image.new("RGB", (30, 30)).save(root / "dog" / "z.png")
    marks.append(dataset(root).fingerprint)
    assert len(set(marks)) == 5
    assert dataset(root).fingerprint == marks[-1]


# wrong input


def refused(call):
    with pytest.raises(SslrobError) as caught:
        call()
    assert caught.value.hint
    return str(caught.value)


def test_an_empty_file(root):
    (root / "cat" / "a.png").write_bytes(b"")
    message = refused(lambda: dataset(root)[2])
    assert "a.png" in message
    assert "is empty" in message


@pytest.mark.parametrize("content", [b"no image at all", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"GIF89a"], ids=range(4))
def test_an_unreadable_file(root, content):
    (root / "cat" / "a.png").write_bytes(content)
    message = refused(lambda: dataset(root)[2])
    assert "a.png" in message
    assert "cannot be read" in message


@pytest.mark.parametrize("name", ["y.png", "x.jpg"])
def test_a_truncated_file(root, name):
    file = root / "dog" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    index = dataset(root).ids.index(f"dog/{name}")
    assert "cannot be read" in refused(lambda: dataset(root)[index])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_an_image_of_more_than_8_bits(root, dtype):
    (root / "bird" / "1.png").unlink()
    Image.fromarray(np.full((12, 16), 200, dtype=dtype)).save(root / "bird" / "1.tif")
    assert "more than 8 bits" in refused(lambda: dataset(root)[0])


def test_a_file_that_vanished(root):
    found = dataset(root)
    (root / "cat" / "a.png").unlink()
    assert "does not exist" in refused(lambda: found[2])


def test_a_missing_folder(tmp_path):
    assert "no folder" in refused(lambda: dataset(tmp_path / "nowhere"))


def test_a_folder_without_images(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "readme.txt").write_text("none")
    assert "no image below" in refused(lambda: dataset(tmp_path))


def test_an_image_in_no_class_folder(root):
    Image.new("RGB", (4, 4)).save(root / "loose.png")
    assert "loose.png" in refused(lambda: dataset(root))


def test_a_folder_that_is_no_class(root):
    message = refused(lambda: dataset(root, classes=("cat", "dog")))
    assert "'bird'" in message


def test_another_format(root):
    assert "'imagefoldr'" in refused(lambda: dataset(root, format="imagefoldr"))


@pytest.mark.parametrize("settings", [{"resise": 4}, {"resize": "big"}], ids=str)
def test_wrong_settings(root, settings):
    assert repr(next(iter(settings))) in refused(lambda: dataset(root, **settings))


def test_a_crop_that_is_too_large(root):
    assert "13 × 13" in refused(lambda: dataset(root, crop=13)[0])


def test_another_head():
    assert "'mlp'" in refused(lambda: TASK.victim(ToyBackbone(), kind="mlp", classes=("a", "b"), settings={}))
    assert "'bias'" in refused(lambda: TASK.victim(ToyBackbone(), kind="linear", classes=("a", "b"), settings={"bias": 1}))


# the victim


def victim(classes=7):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LinearClassifier(ToyBackbone(), classes)


def test_task_and_victim_keep_their_contracts(root):
    torch.manual_seed(0)
    found, head = dataset(root), TASK.victim(ToyBackbone(), kind="linear", classes=("bird", "cat", "dog"), settings={})
    check_task(TASK, found, head, classes=found.classes)
    samples = [found[i] for i in range(4)]
    check_victim(head, torch.stack([s.image for s in samples]), [s.target for s in samples])


def test_verdicts():
    logits = torch.tensor(
        [[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [2.0, 2.0, 1.0], [torch.nan, 1.0, 1.0], [torch.nan] * 3, [1.0, torch.inf, 0.0]]
    )
    targets = [0, 1, 0, 1, 0, 1]
    head = victim(3)
    assert head.fooled(logits, targets).tolist() == [False, True, True, True, True, False]  # a tie is wrong, and so is NaN
    assert head.quality(logits, targets)[:3].tolist() == [1.0, -2.0, 0.0]
    margin = head.loss(logits[:3], targets[:3], "margin", 0.5)
    assert margin.tolist() == [-1.0, 2.0, 0.0]
    assert torch.allclose(
        head.loss(logits[:3], targets[:3], "ce", 0.5), torch.nn.CrossEntropyLoss(reduction="none")(logits[:3], torch.tensor(targets[:3]))
    )


def test_ranks_by_hand():
    scores = torch.tensor([0.1, 0.7, 0.7, -2.0])
    assert [TASK.measure(scores, target)["rank"] for target in range(4)] == [2, 1, 1, 3]
    assert TASK.measure(scores, 0) == {"label": 0, "predicted": 1, "rank": 2}
    assert TASK.measure(torch.full((4,), 5.0), 0)["rank"] == 3  # ties count as wrong
    assert TASK.measure(torch.full((4,), torch.nan), 0)["rank"] == 3
    assert TASK.measure(torch.tensor([torch.nan, 1.0]), 1)["rank"] == 1


def test_a_rank_of_zero_is_what_is_not_fooled():
    g = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 4, (200, 6), generator=g).float()
    targets = torch.randint(0, 6, (200,), generator=g).tolist()
    ranks = [TASK.measure(scores, target)["rank"] for scores, target in zip(logits, targets, strict=True)]
    assert [rank > 0 for rank in ranks] == victim(6).fooled(logits, targets).tolist()


@pytest.mark.parametrize("classes", [3, 6, 20])
def test_top_k_is_among_the_k_highest(classes):
    g = torch.Generator().manual_seed(classes)
    logits = torch.randn(100, classes, generator=g)
    targets = torch.randint(0, classes, (100,), generator=g)
    rows = [TASK.measure(scores, int(target)) for scores, target in zip(logits, targets, strict=True)]
    found = TASK.aggregate(rows)
    for k in (1, 5):
        highest = logits.topk(min(k, classes)).indices
        assert found[f"top{k}"] == pytest.approx(100 * float((highest == targets[:, None]).any(1).float().mean()), abs=1e-4)


def test_intervals_are_around_the_metrics():
    rows = [{"rank": rank} for rank in (0, 0, 0, 1, 2, 7)]
    metrics, intervals = TASK.aggregate(rows), TASK.intervals(rows)
    assert metrics == {"top1": 50.0, "top5": pytest.approx(500 / 6)}
    assert intervals.keys() == metrics.keys()
    assert all(low < metrics[name] < high for name, (low, high) in intervals.items())

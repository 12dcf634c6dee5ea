"""Data sets from what people have on disk, and networks by name; each wrong input in one line."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from peppp.errors import DataError, NetworkError
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset, digest
from peppp.tasks.readers import load

RNG = np.random.default_rng(0)


def picture(height=8, width=8, channels=3):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if image is None else image).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        for i in range(5):
            save(tmp_path / "pets" / name / f"{i}.png")
    return tmp_path / "pets"


def arrays(**changes):
    count, labels = 6, np.arange(6) % 2
    images = RNG.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    given = {
        "x_train": images,
        "x_test": images[:3],
        "y_train": labels,
        "y_test": labels[:3],
        "classes": np.array(["even", "odd"]),
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


def test_digits_are_the_1797_of_scikit_learn():
    data = load("digits")
    assert (len(data.train_targets) + len(data.test_targets), data.resolution) == (1797, 8)
    assert data.classes == tuple("0123456789")
    assert data.chance_error == pytest.approx(0.9)
    assert data.train_inputs.max() == 255
    assert abs(len(data.test_targets) - 0.2 * 1797) < 5
    assert set(data.test_targets) == set(range(10))


def test_the_names_of_stored_measurements_stay():
    """Fingerprints are the keys of stores: a reader that changes them would lose what was measured."""
    assert load("digits").fingerprint == "bf51aa362ee74439"
    assert load("digits:024").fingerprint == "9a6b9c5369da6255"
    assert load("digits:579?train=100&test=200&resolution=16").fingerprint == "3dae541ebd59d72e"


def test_partitions_of_the_digits_are_siblings():
    data = load("digits:579")
    assert (data.name, data.group, data.classes) == ("digits-579", "digits", ("5", "7", "9"))
    assert set(data.train_targets) == {0, 1, 2}
    assert data.fingerprint != load("digits").fingerprint
    assert load("digits:975").fingerprint == data.fingerprint


def test_a_folder_without_a_test_part_is_split_in_each_class(folder):
    data = load(str(folder))
    assert (data.name, data.classes, data.resolution) == ("pets", ("cat", "dog"), 8)
    assert np.bincount(data.train_targets).tolist() == [4, 4]
    assert np.bincount(data.test_targets).tolist() == [1, 1]
    again = load(f"folder:{folder}")
    assert again.fingerprint == data.fingerprint
    assert (again.train_inputs == data.train_inputs).all()
    save(folder / "cat" / "0.png")
    assert load(str(folder)).fingerprint != data.fingerprint


def test_a_folder_with_a_test_part_keeps_it(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for name in ("a", "b"):
            for i in range(count):
                save(tmp_path / "set" / part / name / f"{i}.jpg", quality=90)
    data = load(str(tmp_path / "set"))
    assert (len(data.train_targets), len(data.test_targets)) == (6, 4)


def test_inputs_are_cropped_to_their_middle_and_resized_with_lanczos(tmp_path):
    wide = picture(40, 60)
    for name in ("a", "b"):
        for i in range(2):
            save(tmp_path / name / f"{i}.png", wide)
    data = load(str(tmp_path), resolution=16)
    expected = Image.fromarray(wide[:, 10:50]).resize((16, 16), Image.Resampling.LANCZOS)
    assert (data.train_inputs[0] == np.asarray(expected)).all()


def test_grey_images_get_three_equal_channels(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name / "0.png", picture(channels=1))
        save(tmp_path / name / "1.png", picture())
    data = load(str(tmp_path))
    grey = [np.ptp(image, axis=2).max() == 0 for image in (*data.train_inputs, *data.test_inputs)]
    assert sorted(grey) == [False, False, True, True]


@pytest.mark.parametrize(("sizes", "side"), [([8, 8], 8), ([64, 64], 64), ([65, 65], 32), ([8, 16], 32)])
def test_a_folder_keeps_its_own_resolution_where_it_has_a_small_one(tmp_path, sizes, side):
    for name in ("a", "b"):
        for i, size in enumerate(sizes):
            save(tmp_path / name / f"{i}.png", picture(size, size))
    assert load(str(tmp_path)).resolution == side


def test_hidden_files_and_files_that_are_no_images_are_passed_over(folder):
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / ".cache").mkdir()
    assert load(str(folder)).classes == ("cat", "dog")


def test_both_npz_layouts(tmp_path):
    raw = arrays()
    np.savez(tmp_path / "raw.npz", **raw)
    encoded = {}
    for part in ("train", "test"):
        files = []
        for image in raw[f"x_{part}"]:
            buffer = io.BytesIO()
            Image.fromarray(image.squeeze()).save(buffer, "png")  # lossless, so that pixels can be compared
            files.append(buffer.getvalue())
        encoded[f"{part}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        encoded[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
    np.savez(tmp_path / "jpeg.npz", **{k: v for k, v in raw.items() if k[0] != "x"}, **encoded)
    one, two = load(str(tmp_path / "raw.npz")), load(f"npz:{tmp_path / 'jpeg.npz'}")
    assert one.train_inputs.shape == (6, 8, 8, 3)
    assert (one.train_inputs == two.train_inputs).all()
    assert (one.test_inputs == two.test_inputs).all()


def test_a_cut_moves_the_rest_of_the_training_part_into_the_test_part():
    whole, part = load("digits"), load("digits?train=300&test=1000&group=other")
    assert (len(part.train_targets), len(part.test_targets), part.group) == (300, 1000, "other")
    assert np.ptp(np.bincount(part.train_targets)) <= 2
    pixels = lambda images: {image.tobytes() for image in images}  # noqa: E731
    assert pixels(part.train_inputs) <= pixels(whole.train_inputs)
    assert not pixels(part.train_inputs) & pixels(part.test_inputs)
    assert load("digits?train=300&test=1000").fingerprint == part.fingerprint != whole.fingerprint


def test_shared_sets_can_be_read(shared):
    for name, side, classes in (("magnetic_tiles", 64, 6), ("mnist", 32, 10), ("gtsrb", 32, 43)):
        data = load(str(shared / "data" / f"{name}.npz"))
        assert (data.resolution, len(data.classes)) == (side, classes)


def test_the_former_fingerprint_of_a_folder_is_that_of_its_files(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            for i in range(2):
                save(tmp_path / part / name / f"{i}.png")
    contents = []
    for part in ("train", "test"):
        contents += ["test"] if part == "test" else []
        for path in sorted((tmp_path / part).glob("*/*")):
            contents += [f"{path.parent.name}/{path.name}", path.read_bytes()]
    assert load(str(tmp_path)).former == digest(*contents)


def test_fingerprints_of_shared_sets_stay(shared):
    for text, fingerprint in (
        ("mnist.npz", "07790978c7069aec"),
        ("gtsrb.npz?train=430", "b8ddefbcd270f6f7"),
        ("magnetic_tiles.npz", "6495e6e915e0a54c"),
    ):
        assert load(f"{shared}/data/{text}").fingerprint == fingerprint


def bad_npz(tmp_path, **changes):
    np.savez(tmp_path / "set.npz", **arrays(**changes))
    return str(tmp_path / "set.npz")


BAD_TEXTS = {
    "digits:3": "two or more",
    "digits:3x": "no such digits",
    "digits?train=many": "train=many",
    "digits?size=3": "size=3",
    "digits?train=5": "at least one of each",
    "hub:mnist": "unknown kind of data 'hub'",
    "nowhere": "no such folder: nowhere",
    "nowhere.npz": "no such file: nowhere.npz",
}


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS.items())
def test_wrong_texts(text, message):
    with pytest.raises(DataError, match=message) as error:
        load(text)
    assert "\n" not in str(error.value)


def test_wrong_folders(folder, tmp_path):
    (tmp_path / "one" / "only").mkdir(parents=True)
    save(tmp_path / "one" / "only" / "0.png")
    with pytest.raises(DataError, match="holds only one class folder; it needs at least two"):
        load(str(tmp_path / "one"))

    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        load(str(folder))
    save(folder / "empty" / "0.png")
    with pytest.raises(DataError, match="class 'empty' has 1 image;"):
        load(str(folder))
    save(folder / "empty" / "1.png")
    assert len(load(str(folder)).classes) == 3

    whole = (folder / "dog" / "3.png").read_bytes()
    for damaged in (b"", b"not an image", whole[: len(whole) // 2]):
        (folder / "dog" / "3.png").write_bytes(damaged)
        with pytest.raises(DataError, match=r"dog/3\.png is not an image that can be decoded"):
            load(str(folder))
    (folder / "dog" / "3.png").write_bytes(whole)
    with pytest.raises(DataError, match="resolution of 2 pixels"):
        load(str(folder), resolution=2)


def test_a_test_class_that_was_not_trained(tmp_path):
    for path in ("train/a", "train/b", "test/a", "test/c"):
        save(tmp_path / path / "0.png")
    with pytest.raises(DataError, match="the class 'c', which"):
        load(str(tmp_path))


def test_wrong_archives(tmp_path):
    for changes, message in (
        ({"classes": None}, "lacks classes"),
        ({"x_test": None}, "lacks x_test, and test_jpeg"),
        ({"y_train": np.zeros(5, int)}, "6 images but 5 labels"),
        ({"y_train": np.full(6, 2)}, "labels 2 to 2 for 2 classes"),
        ({"y_train": np.zeros(6)}, "y_train must be a one-dimensional integer array"),
        ({"x_train": np.zeros((6, 8, 8, 1))}, "must be uint8"),
        ({"x_train": np.zeros((6, 8, 8, 2), np.uint8)}, "1 or 3"),
        ({"x_test": np.zeros((3, 9, 9, 1), np.uint8)}, "have 8 pixels a side, test images 9"),
        ({"y_train": np.zeros(6, int)}, "no training images of the class 'odd'"),
        ({"classes": np.array(["even", "even"])}, "two classes named 'even'"),
        (
            {"y_test": np.zeros(0, int), "x_test": np.zeros((0, 8, 8, 1), np.uint8)},
            "y_test must be a one-dim",
        ),
        (
            {"x_train": None, "train_jpeg": np.zeros(9, np.uint8), "train_offsets": np.arange(7) * 2},
            "must rise",
        ),
        ({"classes": np.array(["a", "b"], dtype=object)}, "not an .npz file of plain arrays"),
    ):
        with pytest.raises(DataError, match=message):
            load(bad_npz(tmp_path, **changes))
    (tmp_path / "set.npz").write_bytes(b"not a zip file")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        load(str(tmp_path / "set.npz"))
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("y_train.npy", b"\x93NUMPY broken")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        load(str(tmp_path / "set.npz"))


# ResNets and VGGs with batch norm in their small-image form, 10 classes, as published with their code.
PUBLISHED = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "vgg11": 9_231_114,
    "vgg13": 9_416_010,
    "vgg16": 14_728_266,
    "vgg19": 20_040_522,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_networks_have_their_published_number_of_parameters(name, parameters):
    network = networks.build(name, classes=10, device="meta")
    assert sum(p.numel() for p in network.parameters()) == parameters
    other = networks.build(name, classes=1623, device="meta")
    assert sum(p.numel() for p in other.parameters()) == parameters + 1613 * 513


def test_a_vgg_of_another_width_has_convolutions_of_that_width():
    import torch

    network = networks.build("vgg11-w8", classes=10, device="meta")
    outputs = [m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert outputs == [8, 16, 32, 32, 64, 64, 64, 64]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("side", [8, 20, 32, 64, 224])
def test_they_take_any_resolution(name, side):
    import torch

    network = networks.build(name, classes=7, device="meta")
    assert network(torch.zeros(2, 3, side, side, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("side", [8, 16, 33, 64])
def test_the_small_resnet_takes_any_resolution(side):
    import torch

    network = networks.build("resnet8-w4", classes=3)
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 3)
    assert network.conv.weight.shape[0] == 4


def test_a_network_of_one_s_own(tmp_path, monkeypatch):
    (tmp_path / "ownnets.py").write_text(
        "from torch import nn\n"
        "def small(classes, channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, classes))\n"
        "def wrong(classes, channels):\n    return 3\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert networks.build("ownnets:small", classes=4)[1].out_features == 4
    for name, message in (
        ("ownnets:wrong", "returned a int"),
        ("ownnets:number", "not callable"),
        ("ownnets:missing", "cannot load"),
        ("nowhere:small", "cannot load"),
        ("resnet9", "unknown network 'resnet9'; known: resnet8"),
        ("resnet8-w0", "unknown network"),
        ("vgg16-w0", "unknown network"),
        ("transformer-w20", "multiple of 8"),
        ("ownnets:broken.deeper", "cannot load the network"),
    ):
        with pytest.raises(NetworkError, match=message):
            networks.build(name, classes=4)


def test_a_network_in_the_working_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "herenets.py").write_text(
        "from torch import nn\ndef one(classes, channels): return nn.Identity()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert type(networks.build("herenets:one", classes=4)).__name__ == "Identity"


def test_networks_refuse_inputs_of_another_kind():
    for data, network, fitting in (
        ("wine", "resnet8", "mlp"),
        ("grammar", "mlp", "transformer"),
        ("digits", "transformer", "resnet8"),
    ):
        with pytest.raises(NetworkError, match=f"{network} takes .*; give {fitting}"):
            networks.check(network, load(data))


def test_tables_and_texts():
    wine, cancer, diabetes, grammar = map(load, ("wine", "breast_cancer", "diabetes", "grammar"))
    assert (wine.kind, wine.channels, wine.outputs, wine.resolution) == ("numbers", 13, 3, 0)
    assert len(wine.train_targets) + len(wine.test_targets) == 178
    assert (cancer.classes, cancer.input_shape) == (("malignant", "benign"), (30,))
    assert (diabetes.classes, diabetes.outputs, diabetes.chance_error) == ((), 1, 1.0)
    assert diabetes.train_targets.dtype == np.float32
    assert (grammar.kind, grammar.input_shape, grammar.channels) == ("text", (64,), len(grammar.classes))
    assert (grammar.train_inputs[:, 1:] == grammar.train_targets[:, :-1]).all()  # what follows is the target
    assert (grammar.train_targets[:-1, -1] == grammar.train_inputs[1:, 0]).all()
    assert grammar.fingerprint == load("grammar?resolution=64").fingerprint == "877c230ab7655931"
    small = load("diabetes?train=100&test=50")
    assert (len(small.train_targets), len(small.test_targets)) == (100, 50)


def test_a_text_file(tmp_path):
    (tmp_path / "book.txt").write_text("Für Elise. " * 100, encoding="utf-8")
    data = load(f"text:{tmp_path / 'book.txt'}?resolution=10")
    assert (data.name, data.resolution, "ü" in data.classes) == ("book", 10, True)
    text = "".join(data.classes[i] for i in data.train_inputs[:2].ravel())
    assert text == ("Für Elise. " * 2)[:20]
    for data, message in (
        (b"\xff\xfe", "not text in UTF-8"),
        (b"aaaa" * 99, "1 of them different"),
        (b"ab", "ten windows"),
    ):
        (tmp_path / "book.txt").write_bytes(data)
        with pytest.raises(DataError, match=message):
            load(f"text:{tmp_path / 'book.txt'}")


def test_data_of_one_s_own(tmp_path, monkeypatch):
    (tmp_path / "owndata.py").write_text(
        "import numpy as np\n"
        "from peppp.tasks.dataset import Dataset, digest\n"
        "def waves():\n"
        "    x = np.linspace(0, 1, 40, dtype=np.float32)[:, None]\n"
        "    return Dataset('waves', 'waves', digest(x), (), x[::2], np.sin(x[::2, 0]), x[1::2],"
        " np.sin(x[1::2, 0]), 'squared_error')\n"
        "def wrong(): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert (load("own:owndata:waves").kind, load("own:owndata:waves?group=g").group) == ("numbers", "g")
    with pytest.raises(DataError, match="returned a int"):
        load("own:owndata:wrong")
    with pytest.raises(DataError, match="cannot load the data set owndata:missing"):
        load("own:owndata:missing")


def test_what_is_no_data_set_is_refused_when_it_is_made():
    x, y = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])
    make = lambda x=x, y=y, classes=("a", "b"): Dataset("mine", "mine", "f", classes, x, y, x, y)  # noqa: E731
    assert make().kind == "numbers"
    for changes, message in (
        ({"y": y[:3]}, "4 inputs and 3 targets in the training part"),
        ({"x": x[:0], "y": y[:0]}, "0 inputs"),
        ({"x": x.astype(bool)}, "inputs are bool"),
        ({"y": np.array(list("abab"))}, "targets <U1"),
        ({"y": y + 1}, "targets are 1 to 2 for 2 classes"),
    ):
        with pytest.raises(DataError, match=f"mine: .*{message}"):
            make(**changes)

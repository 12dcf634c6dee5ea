"""CIFAR in its official forms, made here with the real containers; each damage in one line."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from peppp.errors import DataError
from peppp.tasks.catalog import find
from peppp.tasks.readers import load

RNG = np.random.default_rng(0)
BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEN = "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
FISH = ("aquarium_fish", "flatfish", "ray", "shark", "trout")


def hundred():
    from peppp.tasks.catalog import entries

    return sorted(name for entry in entries() if entry.source == "CIFAR-100" for name in entry.class_names)


class Python2Pickle:
    """A batch as Python 2 and its numpy wrote it: protocol 2, byte strings, ``numpy.core.multiarray``."""

    def __init__(self):
        self.out = bytearray(b"\x80\x02")

    def value(self, value):
        match value:
            case dict():
                self.out += b"}("
                for key, item in value.items():
                    self.value(key)
                    self.value(item)
                self.out += b"u"
            case list():
                self.out += b"]("
                for item in value:
                    self.value(item)
                self.out += b"e"
            case int():
                self.out += b"J" + struct.pack("<i", value)
            case bytes():
                self.out += b"T" + struct.pack("<i", len(value)) + value
            case np.ndarray():
                self.out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
                self.out += b"(K\x01"
                for side in value.shape:
                    self.out += b"J" + struct.pack("<i", side)
                self.out += b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
                self.out += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
                self.out += b"\x89"
                self.value(value.tobytes())
                self.out += b"tb"
        return self

    def done(self):
        return bytes(self.out + b".")


def batch(count, classes):
    images = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [i % classes for i in range(count)]
    return images, labels


def cifar10():
    return {name: batch(20, 10) for name in (*BATCHES, "test_batch")}


def cifar100():
    return {"train": batch(200, 100), "test": batch(100, 100)}


def dump(value, python2=True):
    return Python2Pickle().value(value).done() if python2 else pickle.dumps(value, protocol=2)


def python_files(batches, names, python2=True):
    labels = b"labels" if len(names) == 10 else b"fine_labels"
    meta = {"batches.meta": {b"label_names": names}, "meta": {b"fine_label_names": names}}
    kind = "batches.meta" if len(names) == 10 else "meta"
    encoded = [name.encode() for name in names]
    files = {
        name: dump({b"data": images, labels: found, b"batch_label": b"x"}, python2)
        for name, (images, found) in batches.items()
    }
    return files | {kind: dump(dict.fromkeys(meta[kind], encoded), python2)}


def binary_files(batches, names):
    files = {}
    for name, (images, labels) in batches.items():
        columns = [np.array(labels, np.uint8)[:, None]]
        if len(names) == 100:
            columns.insert(0, np.zeros((len(labels), 1), np.uint8))  # the coarse label
        files[f"{name}.bin"] = np.hstack([*columns, images]).tobytes()
    listed = "batches.meta.txt" if len(names) == 10 else "fine_label_names.txt"
    return files | {listed: ("\n".join(names) + "\n").encode()}


def packed(path, files, folder="cifar"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {"readme.html": b"<p>", **files}.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def unpacked(path, files):
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def test_all_forms_of_cifar10_are_one_data_set(tmp_path):
    batches = cifar10()
    forms = [
        packed(tmp_path / "python.tar.gz", python_files(batches, TEN)),
        packed(tmp_path / "python3.tar.gz", python_files(batches, TEN, python2=False)),
        packed(tmp_path / "binary.tar.gz", binary_files(batches, TEN)),
        unpacked(tmp_path / "py", python_files(batches, TEN)),
        unpacked(tmp_path / "bin", binary_files(batches, TEN)),
    ]
    read = [load(f"cifar10={form}") for form in forms]
    assert len({data.fingerprint for data in read}) == 1
    for data in read:
        assert (data.name, data.group, data.classes, data.resolution) == ("cifar10", "cifar", tuple(TEN), 32)
        assert (data.train_inputs.shape, len(data.test_targets)) == ((100, 32, 32, 3), 20)
    row = batches["data_batch_1"][0][3]
    assert (read[0].train_inputs[3].transpose(2, 0, 1).ravel() == row).all()
    assert read[0].train_targets[:12].tolist() == [*range(10), 0, 1]
    assert load(f"cifar10={forms[0]}?resolution=16").train_inputs.shape[1] == 16


@pytest.mark.parametrize("files", [python_files, binary_files])
def test_a_superclass_is_cut_out_of_cifar100(tmp_path, monkeypatch, files):
    names, batches = hundred(), cifar100()
    packed(tmp_path / ("cifar-100-python.tar.gz"), files(batches, names))
    monkeypatch.setenv("PEPPP_DATA", str(tmp_path))
    data = load("cifar100-fish")
    assert (data.name, data.group, data.classes) == ("cifar100-fish", "cifar", FISH)
    assert (np.bincount(data.train_targets) == 2).all()
    images, labels = batches["train"]
    first = images[labels.index(names.index("aquarium_fish"))].reshape(3, 32, 32).transpose(1, 2, 0)
    assert (data.train_inputs[data.train_targets == 0][0] == first).all()
    assert load("cifar100-trees").fingerprint != data.fingerprint


def test_cifar_as_folders_of_images(tmp_path, monkeypatch):
    for part in ("train", "test"):
        for name in (*FISH, "bee"):
            for i in range(2):
                path = tmp_path / "cifar100" / part / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("PEPPP_DATA", str(tmp_path))
    data = load("cifar100-fish")
    assert (data.name, data.classes, len(data.train_targets), len(data.test_targets)) == (
        "cifar100-fish",
        FISH,
        10,
        10,
    )


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_malicious_pickle_is_read_and_not_run(tmp_path):
    marker = tmp_path / "owned"
    evil = pickle.dumps(Malicious(marker), 2)
    by_hand = (
        b"\x80\x02cos\nsystem\nU" + bytes([len(f"touch {marker}")]) + f"touch {marker}".encode() + b"\x85R."
    )
    pollution = b"\x80\x02cnumpy\ndtype\n}U\x01aK\x01sb."  # sets an attribute of what it is handed
    for number, payload in enumerate((evil, by_hand, pollution, b"\x80\x02cbuiltins\neval\nU\x011\x85R.")):
        files = python_files(cifar10(), TEN) | {"data_batch_3": payload}
        path = packed(tmp_path / f"{number}.tar.gz", files)
        with pytest.raises(DataError, match="data_batch_3 is not a batch of CIFAR: it ") as error:
            load(f"cifar10={path}")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert not marker.exists()


def wrong(change):
    files = python_files(cifar10(), TEN)
    change(files)
    return files


IMAGES = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
DAMAGES = {
    "lacks test_batch": lambda f: f.pop("test_batch"),
    r"lacks batches\.meta": lambda f: f.pop("batches.meta"),
    "data_batch_2 is not a batch": lambda f: f.update(data_batch_2=f["data_batch_2"][:100]),
    "test_batch is not a batch of CIFAR: it holds a list": lambda f: f.update(test_batch=dump([1])),
    "data of data_batch_1 are not uint8": lambda f: f.update(
        data_batch_1=dump({b"data": IMAGES[:, :100], b"labels": [0] * 4})
    ),
    "4 images but 3 labels in data_batch_1": lambda f: f.update(
        data_batch_1=dump({b"data": IMAGES, b"labels": [0] * 3})
    ),
    "labels 0 to 77 for 10 classes": lambda f: f.update(
        data_batch_1=dump({b"data": IMAGES, b"labels": [0, 1, 2, 77]})
    ),
    "labels of data_batch_1 are not": lambda f: f.update(
        data_batch_1=dump({b"data": IMAGES, b"labels": [b"a"] * 4})
    ),
    "holds no list of class names": lambda f: f.update({"batches.meta": dump({b"x": 1})}),
    "two classes named 'cat'": lambda f: f.update(
        {"batches.meta": dump({b"label_names": [n.replace("dog", "cat").encode() for n in TEN]})}
    ),
}


@pytest.mark.parametrize(("message", "change"), DAMAGES.items())
def test_damaged_batches(tmp_path, message, change):
    path = packed(tmp_path / "c.tar.gz", wrong(change))
    with pytest.raises(DataError, match=message) as error:
        load(f"cifar10={path}")
    assert "\n" not in str(error.value)


def test_damaged_archives(tmp_path):
    whole = packed(tmp_path / "c.tar.gz", python_files(cifar10(), TEN)).read_bytes()
    for data in (whole[: len(whole) // 2], b"not an archive", b"", whole[:5000] + b"\0" * 500 + whole[5500:]):
        (tmp_path / "c.tar.gz").write_bytes(data)
        with pytest.raises(DataError, match=r"c\.tar\.gz") as error:
            load(f"cifar10={tmp_path / 'c.tar.gz'}")
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="is not a CIFAR archive: it holds neither"):
        load(f"cifar10={packed(tmp_path / 'other.tar.gz', {'a': b'b'})}")
    short = binary_files(cifar10(), TEN)
    short["data_batch_4.bin"] = short["data_batch_4.bin"][:-1]
    with pytest.raises(DataError, match=r"data_batch_4\.bin has 61459 bytes, not a multiple of"):
        load(f"cifar10={packed(tmp_path / 'short.tar.gz', short)}")
    with pytest.raises(DataError, match="has no class 'aquarium_fish'"):
        load(f"cifar100-fish={packed(tmp_path / 'ten.tar.gz', python_files(cifar10(), TEN))}")
    with pytest.raises(DataError, match="100 classes; CIFAR-10 has ten"):
        load(f"cifar10={packed(tmp_path / 'hundred.tar.gz', python_files(cifar100(), hundred()))}")
    with pytest.raises(DataError, match="no such file or folder"):
        load(f"cifar10={tmp_path / 'nothing.tar.gz'}")


def test_a_member_that_claims_too_much_is_not_read(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    info = tarfile.TarInfo("cifar/data_batch_1")
    info.size = 300 * 2**20
    import gzip

    path.write_bytes(gzip.compress(info.tobuf() + b"\0" * 1024))
    with pytest.raises(DataError, match="is too large"):
        load(f"cifar10={path}")


def test_links_and_folders_are_not_followed(tmp_path):
    files = python_files(cifar10(), TEN)
    path = tmp_path / "link.tar.gz"
    packed(path, {k: v for k, v in files.items() if k != "test_batch"})
    secret = tmp_path / "secret"
    secret.write_bytes(files["test_batch"])
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"cifar/{name}")
            if name == "test_batch":
                info.type, info.linkname = tarfile.SYMTYPE, str(secret)
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match="lacks test_batch"):
        load(f"cifar10={path}")


def test_a_set_that_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PEPPP_DATA", str(tmp_path))
    with pytest.raises(DataError, match="imagenet-bag is not on this machine") as error:
        load("imagenet-bag")
    assert str(tmp_path) in str(error.value)
    assert find("imagenet-bag").points == 6519

"""What was trained is used: `peppp predict`, and the same in ten lines of plain PyTorch."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.helpers import answer, peppp, refused

from peppp.tasks.readers import load

ROOT = Path(__file__).parents[1]
COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (20, 40, 210)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of one colour each and noise, a folder a class; and as many new ones."""
    draw, root = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    for part, count in (("photos", 24), ("new", 4)):
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(colour + draw.normal(0, 40, (20, 26, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module", params=["fp32", "amp-bf16", "bf16", "packed:1-4-4/1-6-7"])
def run(request, photos):
    folder = photos / request.param.replace("/", "-").replace(":", "-")
    line = ["train", photos / "photos", "--network", "resnet8-w8", "--resolution", "16", "--epochs", "12"]
    told = answer(*line, "--learning-rate", "0.02", "--precision", request.param, "--out", folder)
    assert told["test_error"] < 0.1
    return folder


def test_new_photographs_are_labelled(photos, run, tmp_path):
    found = answer("predict", run, photos / "new")
    assert len(found["predictions"]) == 12
    for row in found["predictions"]:
        assert row["label"] == Path(row["image"]).parent.name
        assert row["probability"] == max(row["probabilities"].values())
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    one = photos / "new" / "red" / "0.png"
    shown = peppp("predict", run, one).stdout
    assert re.fullmatch(rf"red +\d+\.\d%  {re.escape(str(one))}\n", shown)
    table = tmp_path / "labels.csv"
    peppp("predict", run, photos / "new", "--csv", table)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [row["label"] for row in found["predictions"]]
    assert set(rows[0]) == {"image", "label", "probability", *COLOURS}


@pytest.mark.parametrize("kind", ["plain", "turned", "transparent"])
def test_the_lines_of_the_docs_predict_the_same(photos, run, tmp_path, kind):
    page = (ROOT / "docs" / "howto" / "predict.md").read_text()
    code = re.search(r"```\n(import json.*?)```", page, re.DOTALL)[1]
    picture = photos / "new" / "blue" / "1.png"
    with Image.open(picture) as image:
        if kind == "turned":
            picture, exif = tmp_path / "turned.png", image.getexif()
            exif[274] = 6  # the camera stood on its side
            image.save(picture, exif=exif)
        elif kind == "transparent":
            picture, seen = tmp_path / "transparent.png", image.convert("RGBA")
            seen.putalpha(Image.linear_gradient("L").resize(image.size))
            seen.save(picture)
    place = {"run": run, "picture": picture}
    exec(compile(code, "predict.md", "exec"), place)
    (said,) = answer("predict", run, picture)["predictions"]
    assert place["label"] == said["label"]
    mine = [said["probabilities"][name] for name in place["classes"]]
    assert np.allclose(place["probabilities"].detach().numpy(), mine, atol=1e-6)


def test_the_test_part_is_predicted_as_the_run_said(photos, run):
    data = load(str(photos / "photos"), resolution=16)
    from peppp.training.predicting import probabilities, read_trained

    trained = read_trained(run)
    wrong = (probabilities(trained, data.test_inputs).argmax(1).numpy() != data.test_targets).mean()
    assert wrong == pytest.approx(trained.test_error, abs=0.1)


def test_a_finished_run_tells_what_it_told(photos, run):
    name = {"packed-1-4-4-1-6-7": "packed:1-4-4/1-6-7"}.get(run.name, run.name)
    line = ["train", photos / "photos", "--network", "resnet8-w8", "--resolution", "16", "--epochs", "12"]
    again = [answer(*line, "--learning-rate", "0.02", "--precision", name, "--out", run) for _ in range(2)]
    assert again[0]["peak_measured"] == again[1]["peak_measured"] > 0
    assert again[0]["test_error"] == again[1]["test_error"]
    assert again[0]["curve"] == again[1]["curve"]


def test_what_cannot_be_predicted_is_said_in_one_line(photos, run, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.jpg").write_bytes(b"nor this")
    said = refused("predict", run, tmp_path)
    assert "a.png" in said
    assert "b.jpg" in said
    assert "give the folder of a finished" in refused("predict", tmp_path / "nowhere", photos / "new")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "is no file of `peppp train`" in refused("predict", tmp_path / "other.safetensors", photos / "new")
    assert "holds no images" in refused("predict", run, ROOT / "scripts")
    for place, says in ((tmp_path / "none" / "x.csv", "there is no folder"), (tmp_path, "it is not a file")):
        assert says in refused("predict", run, photos / "new", "--csv", place)
    assert "not of resnet18" in refused("predict", run, photos / "new", "--network", "resnet18")
    about = {
        "recipe": json.dumps({"network": "os:system"}),
        "classes": ["a", "b"],
        "configuration": "fp32/fp32",
    }
    about |= {
        "inputs": {"kind": "images", "channels": 3, "shift": [0, 0, 0], "scale": [1, 1, 1]},
        "test_error": 0.1,
    }
    save_file({"x": torch.zeros(1)}, tmp_path / "evil.safetensors", metadata={"peppp": json.dumps(about)})
    said = refused("predict", tmp_path / "evil.safetensors", photos / "new")
    assert "a network of your own; if you trust it, give --network os:system" in said

"""The public data sets: each reader on a tiny tree in the true layout, with every odd case of names and splits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rmadapter.data import load_task, public_names
from rmadapter.data.catalog import RULES, entries, entry
from rmadapter.data.public import ROOT
from rmadapter.data.task import TWICE, check_class_names, check_template
from rmadapter.errors import DataError
from rmadapter.method import prompts
from trees import WNIDS, Rows, aircraft_tree, imagenet_tree, one_each, picture, split_tree, variants_tree, write

pytestmark = pytest.mark.filterwarnings("ignore:.*is not as published")  # tiny trees are not


@pytest.fixture(autouse=True)
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT, raising=False)


def rows(split: object) -> list[tuple[str, int]]:
    return [(item.picture.name, item.label) for item in split]  # type: ignore[attr-defined]


# What the catalogue says -----------------------------------------------------------------------------------------


def test_the_catalogue_is_the_published_benchmark() -> None:
    assert [name.removeprefix("public/") for name in public_names()] == [
        *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101"),
        *("fgvc_aircraft", "sun397", "dtd", "eurosat", "ucf101"),
    ]
    assert [name for name in public_names(domains=True) if name not in public_names()] == [
        f"public/imagenet{suffix}" for suffix in ("v2", "_sketch", "_a", "_r")
    ]
    halves = {name: ((known.classes + 1) // 2, known.classes // 2) for name, known in entries().items()}
    assert halves["oxford_pets"] == (19, 18) and halves["dtd"] == (24, 23) and halves["sun397"] == (199, 198)
    assert [known.classes for known in entries().values()] == [
        *(1000, 100, 37, 196, 102, 101, 100, 397, 47, 10, 101),
        *(1000, 1000, 200, 200),
    ]
    for known in entries().values():
        check_template(known.template)
        assert known.obtained and known.notes and "http" not in known.obtained
    assert (
        entry("public/dtd").template == "{} texture." and entry("food101").template == "a photo of {}, a type of food."
    )


def test_the_documented_table_is_the_catalogue() -> None:
    text = (Path(__file__).parents[2] / "docs" / "public-data.md").read_text(encoding="utf-8")
    table = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `public/")}
    assert tuple(table) == public_names(domains=True)
    for name, line in table.items():
        known = entry(name)
        assert f"| `{known.folder}` |" in line and line.endswith(f"| {known.classes} | {known.template} |")
        assert known.reader != "split" or f"| `{known.files[0]}` |" in line


def test_official_totals() -> None:
    """Sizes of whole data sets, which the splits must add up to."""
    sums = {name: (known.train or 0) + (known.val or 0) + known.test for name, known in entries().items()}
    assert sums["dtd"] == 47 * 120 and sums["food101"] == 101 * 1000 and sums["eurosat"] == 27_000
    assert sums["oxford_flowers"] == 8189 and sums["stanford_cars"] == 16_185 and sums["fgvc_aircraft"] == 10_000
    assert sums["sun397"] == 397 * 100 and sums["ucf101"] == 13_320 and sums["oxford_pets"] == 7349


@pytest.mark.parametrize(
    ("name", "raw", "published"),
    [
        ("caltech101", "airplanes", "airplane"),
        ("caltech101", "Faces", "face"),
        ("caltech101", "Leopards", "leopard"),
        ("caltech101", "Motorbikes", "motorbike"),
        ("caltech101", "car_side", "car side"),
        ("oxford_pets", "Egyptian_Mau", "egyptian mau"),
        ("stanford_cars", "Acura TL Sedan 2012", "2012 Acura TL Sedan"),
        ("stanford_cars", "Ram C/V Cargo Van Minivan 2012", "2012 Ram C/V Cargo Van Minivan"),
        ("sun397", "/a/abbey", "abbey"),
        ("sun397", "/a/apartment_building/outdoor", "outdoor apartment building"),
        ("eurosat", "SeaLake", "Sea or Lake"),
        ("eurosat", "Forest", "Forest"),
        ("ucf101", "ApplyEyeMakeup", "Apply Eye Makeup"),
        ("ucf101", "YoYo", "Yo Yo"),
        ("ucf101", "Archery", "Archery"),
        ("dtd", "polka-dotted", "polka-dotted"),
        ("oxford_flowers", "colt's foot", "colt's foot"),
        ("food101", "baby_back_ribs", "baby back ribs"),
    ],
)
def test_names_take_their_published_form_and_keep_it(name: str, raw: str, published: str) -> None:
    known = entry(name)
    assert known.published_name(raw) == published
    assert known.published_name(published) == published
    assert RULES[known.rule](published.replace(" ", "_")).replace("_", " ") == published


# Split JSONs -----------------------------------------------------------------------------------------------------


def test_caltech_leaves_folders_out_and_keeps_the_order_of_first_names(tmp_path: Path) -> None:
    folders = ["Faces", "Leopards", "Motorbikes", "accordion", "airplanes"]
    names = ["face", "leopard", "motorbike", "accordion", "airplane"]
    train, test = (
        [(f"{f}/image_{i}.jpg", k, n) for k, (f, n) in enumerate(zip(folders, names, strict=True))] for i in "12"
    )
    split_tree(tmp_path, "caltech101", train, test=test)
    for other in ("BACKGROUND_Google", "Faces_easy"):
        picture(tmp_path / "caltech-101" / "101_ObjectCategories" / other / "image_1.jpg")
    task = load_task("caltech101", root=tmp_path)
    assert task.name == "public/caltech101" and task.classes == tuple(names)
    assert task.base().classes == ("face", "leopard", "motorbike")
    assert rows(task.train) == [(path, label) for path, label, _ in train]
    assert task.train.items[0].picture.open().size == (8, 6)
    split_tree(tmp_path, "caltech101", [*train, ("BACKGROUND_Google/image_1.jpg", 5, "BACKGROUND_Google")])
    with pytest.raises(DataError, match=r"leaves out(.|\n)*BACKGROUND_Google(.|\n)*DATASETS.md"):
        load_task("caltech101", root=tmp_path)


def test_splits_that_have_raw_names_give_the_published_ones(tmp_path: Path) -> None:
    raw = {
        "stanford_cars": ["Ram C/V Cargo Van Minivan 2012", "2012 Acura TL Sedan"],
        "sun397": ["/a/abbey", "/a/apartment_building/outdoor"],
        "ucf101": ["ApplyEyeMakeup", "YoYo"],
        "oxford_pets": ["Abyssinian", "american_bulldog"],
    }
    published = {
        "stanford_cars": ("2012 Ram C/V Cargo Van Minivan", "2012 Acura TL Sedan"),
        "sun397": ("abbey", "outdoor apartment building"),
        "ucf101": ("Apply Eye Makeup", "Yo Yo"),
        "oxford_pets": ("abyssinian", "american bulldog"),
    }
    for name, names in raw.items():
        train, test = one_each([f"class{i}" for i in range(2)], "{}/{}.jpg")
        split_tree(tmp_path, name, *([(p, k, names[k]) for p, k, _ in part] for part in (train, (), test)))
        task = load_task(f"public/{name}", root=tmp_path)
        assert task.classes == published[name]
        assert task.root == tmp_path / entry(name).folder / entry(name).images
        assert task.template == entry(name).template and len(task.test) == 2


def test_cars_count_paths_from_their_own_folder(tmp_path: Path) -> None:
    names = ["2012 Ram C/V Cargo Van Minivan", "2012 Acura TL Sedan"]
    train, test = (
        [(f"cars_{part}/0000{k}.jpg", k, name) for k, name in enumerate(names)] for part in ("train", "test")
    )
    split_tree(tmp_path, "stanford_cars", train, test=test)
    task = load_task("stanford_cars", root=tmp_path)
    assert rows(task.test)[0] == ("cars_test/00000.jpg", 0)
    assert prompts(task.classes, task.template)[0] == "a photo of a 2012 Ram C/V Cargo Van Minivan."


EUROSAT = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)


def test_eurosat_has_long_names_whichever_the_file_has(tmp_path: Path) -> None:
    long = tuple(entry("eurosat").labels[label] for label in range(10))
    for names in (EUROSAT, long):
        train, test = ([(f"{f}/{f}_{i}.jpg", k, names[k]) for k, f in enumerate(EUROSAT)] for i in "12")
        split_tree(tmp_path, "eurosat", train, test=test)
        task = load_task("eurosat", root=tmp_path)
        assert task.classes == long and "is 'AnnualCrop'" not in task.note
        assert ("8 class names put into their published form" in task.note) == (names != long)
    assert task.base().classes[-1] == "Industrial Buildings" and task.novel().classes[0] == "Pasture Land"
    assert prompts(task.classes, task.template)[3] == "a centered satellite photo of Highway or Road."
    turned = [(path, 9 - label, name) for path, label, name in train]
    split_tree(tmp_path, "eurosat", turned, test=[(path, 9 - label, name) for path, label, name in test])
    with pytest.warns(UserWarning, match="class 0 is 'Sea or Lake' instead of 'Annual Crop Land'"):
        assert "class 0 is 'Sea or Lake'" in load_task("eurosat", root=tmp_path).note


def published_draw(train: Rows, shots: int, seed: int) -> list[str]:
    """Dassl's draw, written out again: labels by first appearance, positions in the file's order."""
    random.seed(seed)
    groups: dict[int, list[str]] = {}
    for path, label, _ in train:
        groups.setdefault(label, []).append(path)
    return [
        path for group in groups.values() for path in (random.sample(group, shots) if len(group) >= shots else group)
    ]


def test_shots_are_the_published_ones_by_the_files_order(tmp_path: Path) -> None:
    names = ["abyssinian", "beagle", "pug"]
    train = [(f"{names[k]}_{i}.jpg", k, names[k]) for k in (2, 0, 1) for i in range(6)]
    random.Random(5).shuffle(train)
    split_tree(tmp_path, "oxford_pets", train, test=[(f"{name}_9.jpg", k, name) for k, name in enumerate(names)])
    task = load_task("oxford_pets", root=tmp_path)
    assert [name for name, _ in rows(task.train)] == [path for path, _, _ in train]
    state = random.getstate()
    for seed in (1, 2, 3):
        drawn = [name for name, _ in rows(task.shots(4, seed).train)]
        assert drawn == published_draw(train, 4, seed)
        base = {path for path, label, _ in train if label < 2}
        assert [name for name, _ in rows(task.base().shots(4, seed).train)] == [name for name in drawn if name in base]
    random.setstate(state)


def test_the_folder_by_its_path_is_the_same_task_under_another_prompt(tmp_path: Path) -> None:
    train, test = one_each(["abyssinian", "american_bulldog"], "{}_{}.jpg")
    split_tree(tmp_path, "oxford_pets", train, test=test)
    by_path = load_task(tmp_path / "oxford_pets")
    by_name = load_task("oxford_pets", root=tmp_path)
    assert by_path.template == "a photo of a {}." and by_name.template == "a photo of a {}, a type of pet."
    assert by_path.with_template(by_name.template).sha256() == by_name.sha256()
    assert load_task("oxford_pets", root=tmp_path, template="{}!").template == "{}!"


# Other readers ---------------------------------------------------------------------------------------------------


def test_aircraft_reads_the_official_lists(tmp_path: Path) -> None:
    aircraft_tree(tmp_path)
    task = load_task("fgvc_aircraft", root=tmp_path)
    assert task.classes == ("707-320", "F/A-18", "DC-3")
    assert rows(task.train) == [("11.jpg", 1), ("10.jpg", 0), ("12.jpg", 2)]
    assert rows(task.val) == [("20.jpg", 2)] and rows(task.test) == [("30.jpg", 0)]
    write(tmp_path / "fgvc_aircraft" / "images_variant_val.txt", "20 DC-9\n")
    with pytest.raises(DataError, match=r"images_variant_val.txt, line 1: no variant"):
        load_task("fgvc_aircraft", root=tmp_path)


def test_imagenet_sorts_and_keeps_names_that_stand_twice(tmp_path: Path) -> None:
    imagenet_tree(tmp_path)
    write(tmp_path / "imagenet" / "images" / "train" / "n01" / "notes.txt", "no image")
    task = load_task("imagenet", root=tmp_path)
    assert task.classes == tuple(WNIDS.values())
    assert rows(task.train)[:4] == [
        ("train/n01/n01_1.JPEG", 0),
        ("train/n01/n01_10.JPEG", 0),
        ("train/n01/n01_2.JPEG", 0),
        ("train/n02/n02_1.JPEG", 1),
    ]
    assert rows(task.test) == [(f"val/{wnid}/val_{wnid}.JPEG", label) for label, wnid in enumerate(WNIDS)]
    assert len(task.val) == 0  # CoOp's is the test set
    assert prompts(task.classes, task.template).count("a photo of a missile.") == 2
    assert task.novel().classes == ("missile", "crane bird", "sunglasses")
    assert set(TWICE) == set(entry("imagenet").labels.values())
    with pytest.raises(DataError, match="same name"):
        check_class_names(["missile", "crane", "Crane"], "test")
    (tmp_path / "imagenet" / "images" / "val" / "n07").mkdir()
    with pytest.raises(DataError, match="n07"):
        load_task("imagenet", root=tmp_path)
    (tmp_path / "imagenet" / "images" / "train" / "n07").mkdir()
    with pytest.raises(DataError, match=r"classnames.txt does not name(.|\n)*n07"):
        load_task("imagenet", root=tmp_path)


def test_imagenets_variants_are_for_testing(tmp_path: Path) -> None:
    variants_tree(tmp_path)
    tasks = {name: load_task(name, root=tmp_path) for name in public_names(domains=True)[11:]}
    assert all(not len(task.train) and not len(task.val) for task in tasks.values())
    for name in ("imagenetv2", "imagenet_sketch"):
        assert tasks[f"public/{name}"].classes == tuple(WNIDS.values())
    assert rows(tasks["public/imagenetv2"].test) == [("0/a.jpeg", 0), ("1/a.jpeg", 1), ("5/a.jpeg", 5)]
    for name in ("imagenet_a", "imagenet_r"):  # labels of their own: 0 to 2 for the classes that have a folder
        assert tasks[f"public/{name}"].classes == ("missile", "missile", "crane bird")
        assert rows(tasks[f"public/{name}"].test) == [("n02/a.jpeg", 0), ("n04/a.jpeg", 1), ("n05/a.jpeg", 2)]
    (tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val" / "6").mkdir()
    with pytest.raises(DataError, match="folders are named 0 to 5"):
        load_task("imagenetv2", root=tmp_path)


@pytest.mark.parametrize(("line", "message"), [("n01", "line 1: no class name"), ("n02 a\nn02 b", "line 2: a wnid")])
def test_bad_classnames(line: str, message: str, tmp_path: Path) -> None:
    variants_tree(tmp_path)
    write(tmp_path / "imagenet-adversarial" / "classnames.txt", line)
    with pytest.raises(DataError, match=message):
        load_task("imagenet_a", root=tmp_path)

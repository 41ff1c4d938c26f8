"""Synthetic heads: what age and disease do to the anatomy and its images, and the folders that hold them."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from ukb_infer.errors import UsageError
from ukb_infer.imaging.datasets import index_dataset, read_cases
from ukb_infer.imaging.volumes.preprocess import VolumeSettings, preprocess, preprocess_labels
from ukb_infer.imaging.volumes.read import read_volume
from ukb_infer.phantom.heads.anatomy import FIRST_INSIDE, Tissue, paint_head
from ukb_infer.phantom.heads.cohort import write_heads
from ukb_infer.phantom.heads.population import MENINGIOMA, POLYMICROGYRIA, sample_head
from ukb_infer.phantom.heads.scanner import scan_head
from ukb_infer.phantom.heads.signals import signal_of, tissue_parameters
from ukb_infer.phantom.heads.sites import SITES, get_site

STEP = 3.0
ALL = ("t1", "t2", "flair", "dwi", "adc", "t2s", "swi", "pd")


@cache
def shares_of(age: float) -> list[dict[Tissue, float]]:
    """Part of the inside of the skull that each tissue takes, of five heads."""
    found = []
    for index in range(5):
        labels, _ = paint_head(sample_head(3, index, age_range=(age, age + 0.1)), STEP)
        inside = (labels >= FIRST_INSIDE).sum()
        found.append({tissue: float((labels == tissue).sum() / inside) for tissue in Tissue})
    return found


def test_a_head_is_drawn_by_seed_and_index() -> None:
    assert sample_head(1, 2) == sample_head(1, 2)
    assert sample_head(1, 2) != sample_head(1, 3)
    assert sample_head(1, 2) != sample_head(2, 2)
    assert 20.0 <= sample_head(1, 2).age_years <= 88.0


@pytest.mark.parametrize(
    ("tissue", "grows"),
    [(Tissue.CORTEX, False), (Tissue.CSF, True), (Tissue.HIPPOCAMPUS, False), (Tissue.BRIGHT_WHITE, True)],
)
def test_the_old_have_more_fluid_and_less_cortex(tissue: Tissue, grows: bool) -> None:
    young, old = ([found[tissue] for found in shares_of(age)] for age in (25.0, 85.0))
    assert (np.mean(old) > np.mean(young)) == grows
    assert abs(np.mean(old) - np.mean(young)) > 2 * max(np.std(old), np.std(young)) / np.sqrt(5)


def test_ventricles_grow_with_age() -> None:
    def size(age: float) -> int:
        """Voxels of the fluid around the middle of a lateral ventricle, without the sulci."""
        head = sample_head(3, 1, age_range=(age, age + 0.1))
        labels, affine = paint_head(head, STEP)
        fluid, _ = ndimage.label(labels == Tissue.CSF)
        x, y, z = np.array([6.0 + 3.2 * head.ventricles, 0.0, 17.0]) * head.scale
        place = np.rint((np.linalg.inv(affine) @ [x, y, z, 1.0])[:3]).astype(int)
        assert fluid[tuple(place)] > 0
        near = np.abs(np.indices(labels.shape).T * STEP + affine[:3, 3] - [x, y, z]).max(axis=-1).T < 25.0
        return int(((labels == Tissue.CSF) & near).sum())

    assert size(85.0) > 1.5 * size(25.0)


def test_men_have_larger_heads() -> None:
    heads = [sample_head(5, index) for index in range(200)]
    sizes = {male: np.mean([np.prod(h.scale) for h in heads if h.male is male]) for male in (True, False)}
    assert sizes[True] > 1.1 * sizes[False]


def test_signal_equations() -> None:
    head, site = sample_head(1, 1), get_site("site_a")
    table = tissue_parameters(head, 3.0)
    signal = {name: signal_of(site.sequences[name], table) for name in ALL}
    wm, gm, csf, infarct = Tissue.WHITE, Tissue.CORTEX, Tissue.CSF, Tissue.INFARCT
    assert signal["t1"][wm] > signal["t1"][gm] > signal["t1"][csf]
    assert signal["t2"][csf] > signal["t2"][gm] > signal["t2"][wm]
    assert signal["flair"][csf] < 0.3 * signal["flair"][gm]
    assert signal["dwi"][infarct] > 1.4 * signal["dwi"][gm] > 1.4 * signal["dwi"][csf]
    assert signal["adc"][infarct] < 0.7 * signal["adc"][gm] < signal["adc"][csf]
    assert signal["t2s"][Tissue.PALLIDUM] < signal["t2s"][gm]
    assert signal["swi"][Tissue.BLEED] < 0.3 * signal["swi"][wm]
    assert all(values[Tissue.AIR] == 0 for values in signal.values())
    weaker = tissue_parameters(head, 1.5)
    assert weaker[wm, 0] < table[wm, 0]
    assert weaker[wm, 2] > table[wm, 2]
    assert weaker[csf, 0] == table[csf, 0]


@pytest.mark.parametrize("name", SITES)
def test_every_site_scans_the_same_brain_its_own_way(name: str) -> None:
    head, site = sample_head(2, 7), SITES[name]
    scan = scan_head(head, site, list(site.sequences), "small")
    assert nibabel.aff2axcodes(scan.affine) == tuple(site.axes)
    assert all(image.shape == scan.mask.shape for image in scan.images.values())
    assert not scan.mask.any()
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    assert 1100 < voxel_ml * scan.brain.sum() < 1900
    outside = np.mean([(image[scan.brain == 0] > 0).mean() for k, image in scan.images.items() if k != "adc"])
    assert (outside < 0.02) == (site.finish == "stripped")


def test_sites_differ_and_visits_differ_but_the_same_visit_does_not() -> None:
    head = sample_head(2, 8)
    one = scan_head(head, SITES["site_a"], ("t1",), "small")
    same = scan_head(head, SITES["site_a"], ("t1",), "small")
    later = scan_head(head, SITES["site_a"], ("t1",), "small", session=2)
    other = scan_head(head, SITES["site_c"], ("t1",), "small")
    assert np.array_equal(one.images["t1"], same.images["t1"])
    assert not np.array_equal(one.images["t1"], later.images["t1"])
    assert one.mask.shape != other.mask.shape


def test_an_infarct_is_bright_on_diffusion_and_dark_on_the_map() -> None:
    for index in range(4):
        scan = scan_head(sample_head(4, index, "infarct"), SITES["site_a"], ("dwi", "adc"), "small")
        inside, brain = scan.mask > 0, (scan.mask == 0) & (scan.brain > 0)
        assert inside.any()
        assert np.median(scan.images["dwi"][inside]) > np.percentile(scan.images["dwi"][brain], 75)
        assert np.median(scan.images["adc"][inside]) < np.percentile(scan.images["adc"][brain], 25)


def test_a_meningioma_is_one_mass_that_touches_the_dura() -> None:
    for index in range(6):
        head = sample_head(6, index, "meningioma")
        labels, _ = paint_head(head, 2.0)
        tumour = labels == Tissue.MENINGIOMA
        parts, _ = ndimage.label(tumour)
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.max() > 0.98 * tumour.sum()
        radius = next(lesion.radius_mm for lesion in head.lesions if lesion.kind == MENINGIOMA)
        assert 0.2 < tumour.sum() * 8.0 / (4.19 * radius**3 * np.prod(head.scale)) < 1.3
        rim = ndimage.binary_dilation(tumour, iterations=2) & ~tumour
        assert np.isin(labels[rim], (Tissue.DURA, Tissue.BONE)).sum() > 0.02 * rim.sum()


def test_polymicrogyria_thickens_the_cortex_of_a_region_and_nothing_else() -> None:
    for index in range(3):
        head = sample_head(7, index, "polymicrogyria")
        assert head.disease == "polymicrogyria"
        whole = replace(head, lesions=tuple(x for x in head.lesions if x.kind != POLYMICROGYRIA))
        (labels, affine), (before, _) = paint_head(head, 2.0), paint_head(whole, 2.0)
        changed = labels != before
        middle = np.array([x.centre_mm for x in head.lesions if x.kind == POLYMICROGYRIA]) * head.scale
        places = np.argwhere(changed) * 2.0 + affine[:3, 3]
        far = np.linalg.norm(places[:, None] - middle, axis=2).min(axis=1)
        assert far.max() < 40.0 * 1.6
        assert set(np.unique(before[changed])) <= {
            Tissue.DURA,
            Tissue.CSF,
            Tissue.CORTEX,
            Tissue.WHITE,
            Tissue.BRIGHT_WHITE,
        }
        near = np.linalg.norm(np.indices(labels.shape).T * 2.0 + affine[:3, 3] - middle[0], axis=-1).T < 20.0
        thickness = []
        for found in (labels, before):
            cortex = found == Tissue.CORTEX
            thickness.append(ndimage.distance_transform_edt(cortex)[cortex & near].mean())
        assert thickness[0] > 1.05 * thickness[1]
        assert (labels[near] == Tissue.CSF).sum() < 0.85 * (before[near] == Tissue.CSF).sum()  # shallow sulci


def test_the_nerves_run_from_the_pons_on_both_sides() -> None:
    head = sample_head(8, 1, nerves=True)
    labels, affine = paint_head(head, 1.5)
    nerve = labels == Tissue.NERVE
    count = ndimage.label(nerve)[1]
    assert count == 2
    x = np.argwhere(nerve)[:, 0] * 1.5 + affine[0, 3]
    assert 0.6 < (x < 0).sum() / (x > 0).sum() < 1.6
    touches = ndimage.binary_dilation(nerve, iterations=2) & (labels == Tissue.BRAINSTEM)
    assert touches.any()
    around = ndimage.binary_dilation(nerve) & ~nerve
    assert (labels[around] == Tissue.CSF).mean() > 0.6
    assert not (paint_head(sample_head(8, 1), 3.0)[0] == Tissue.NERVE).any()
    scan = scan_head(head, SITES["site_a"], ("t2",))
    sides = [np.argwhere(scan.mask == k) @ scan.affine[:3, :3].T + scan.affine[:3, 3] for k in (1, 2)]
    assert sides[0][:, 0].mean() < -8 < 8 < sides[1][:, 0].mean()
    image, dilated = scan.images["t2"], ndimage.binary_dilation(scan.mask > 0, iterations=2)
    assert np.median(image[scan.mask > 0]) < 0.7 * np.percentile(image[dilated & (scan.mask == 0)], 80)


# -- folders ---------------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def test_the_pool_is_read_as_fomo60k(tmp_path: Path) -> None:
    truth = write_heads(tmp_path, "fomo60k", 4, 1, sites=["site_a", "site_b"], size="small")
    found = index_dataset(tmp_path)
    assert {r.dataset for r in found} == {"PT001_site_a", "PT002_site_b"}
    assert {r.participant for r in found} == {f"sub_000{n}" for n in (1, 2, 3, 4)}
    assert {r.modality for r in found} <= set(ALL)
    assert all(r.status == "ok" for r in found if r.dataset == "PT001_site_a")
    assert len(found) == len(rows(tmp_path / "mapping.tsv"))
    assert {r["site"] for r in rows(truth)} == {"site_a", "site_b"}
    assert {r["participant_id"] for r in rows(tmp_path / "PT001_site_a" / "participants.tsv")} == {
        "sub_0001",
        "sub_0003",
    }


def test_cases_of_every_task_are_read_with_their_labels(tmp_path: Path) -> None:
    inputs = {
        "infarct": (("flair",), ("dwi",), ("adc",), ("t2s", "swi")),
        "meningioma": (("flair",), ("dwi",), ("t2s", "swi")),
        "brain-age": (("t1",), ("t2",)),
        "polymicrogyria": (("t1",),),
        "trigeminal": (("t2",),),
    }
    for layout, channels in inputs.items():
        truth = rows(write_heads(tmp_path / layout, layout, 3, 9, sites=["site_b"], size="small"))
        cases = read_cases(tmp_path / layout, channels)
        assert [c.participant for c in cases] == ["sub_0001", "sub_0002", "sub_0003"]
        for case, true in zip(cases, truth, strict=True):
            assert len(case.images) == len(channels)
            assert case.groups["site"] == "site_b"
            if layout == "infarct":
                assert case.value == float(true["disease"] == "infarct") == float(float(true["lesion_ml"]) > 0)
            elif layout == "polymicrogyria":
                assert case.value == float(true["disease"] == "polymicrogyria")
            elif layout == "brain-age":
                assert case.value == pytest.approx(float(true["age"]), abs=0.01)
            else:
                (image,) = [case.images[channels[0][0]]]
                check_outline(image, case.label, float(true["lesion_ml"]))
                wanted = {0, 1, 2} if layout == "trigeminal" else {0, 1}
                assert set(np.unique(read_volume(case.label, labels=True).data)) == wanted


def check_outline(flair: Path, label: Path | None, lesion_ml: float) -> None:
    """The outline lies on the image's voxels, survives preprocessing, and has its true volume."""
    assert label is not None
    volume, outline = read_volume(flair), read_volume(label, labels=True)
    assert np.allclose(volume.affine, outline.affine)
    settings = VolumeSettings(spacing_mm=3.5, size=(56, 64, 56))
    box, grid = preprocess([volume], settings)
    mask = preprocess_labels(outline, grid)
    assert (mask > 0).sum() * 3.5**3 / 1000 == pytest.approx(lesion_ml, rel=0.1, abs=0.3)
    assert (box[0][mask > 0] != 0).mean() > 0.95
    assert grid.flags == ()


def test_brain_zips_are_read(tmp_path: Path) -> None:
    write_heads(tmp_path, "ukb", 1, 3, size="small")
    assert [(r.participant, r.modality, r.status) for r in index_dataset(tmp_path)] == [
        ("0000001", "flair", "flagged"), ("0000001", "t1", "flagged"),
    ]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "0000001_20252_2_0.zip") as archive:
        assert archive.namelist() == ["T1/T1.nii.gz", "T1/T1_brain.nii.gz"]
    case = read_cases(tmp_path, (("t1",),), column="age")[0]
    assert case.value == pytest.approx(float(rows(tmp_path / "truth.csv")[0]["age"]), abs=0.06)


def test_workers_change_nothing_and_an_earlier_cohort_is_replaced(tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def interrupt(done: int, count: int) -> None:
        if done:
            raise KeyboardInterrupt

    told: list[tuple[int, int]] = []
    write_heads(tmp_path / "one", "infarct", 2, 1, size="small", progress=lambda *n: told.append(n))
    write_heads(tmp_path / "two", "infarct", 2, 1, size="small", workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert told == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(UsageError, match="overwrite"):
        write_heads(tmp_path / "one", "brain-age", 1, 1, size="small")
    write_heads(tmp_path / "one", "brain-age", 1, 1, sites=["site_c"], size="small", overwrite=True)
    assert not list((tmp_path / "one").rglob("adc.nii.gz"))
    with pytest.raises(KeyboardInterrupt):
        write_heads(tmp_path / "cut", "meningioma", 2, 1, size="small", progress=interrupt)
    assert (tmp_path / "cut/preprocessed/sub_0001").is_dir()
    write_heads(tmp_path / "cut", "infarct", 2, 1, size="small", overwrite=True)
    assert files(tmp_path / "cut") == files(tmp_path / "two")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="nothing that is no cohort"):
        write_heads(tmp_path / "other", "infarct", 1, 1, size="small", overwrite=True)
    assert (tmp_path / "other" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layout": "liver"}, "fomo60k"), ({"count": 0}, "1 to 9999"), ({"seed": -1}, "0 or more"),
        ({"workers": 0}, "1 or more"), ({"size": "huge"}, "full or small"), ({"sites": ["site_x"]}, "choices"),
        ({"sites": ["ukb"]}, "no diffusion"), ({"sites": ["ukb"], "layout": "brain-age"}, "no t2"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    options: dict[str, object] = {"layout": "infarct", "count": 1, "seed": 1} | change
    with pytest.raises(UsageError, match=said):
        write_heads(tmp_path / "x", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()

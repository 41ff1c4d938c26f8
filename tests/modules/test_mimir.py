"""Import of the published format, on a stand-in folder with random ResNet50 weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from ukb_infer.errors import ModuleError
from ukb_infer.modules import import_mimir, load_module, verify_module

TABLE = 'Name,Field,Unit,Divisor\nLiver Volume,,L,1000\n"VAT volume",22407-2.0,L,1\nSpleen size (own),,mL,10\n'
MEANS, SDS, FACTORS, DIVISORS = [1500.0, 4.0, 200.0], [300.0, 2.0, 50.0], [1.5, 0.8, 1.0], [1000.0, 1.0, 10.0]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mimir") / "module_organs"
    folder.mkdir()
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None)
    network.fc = torch.nn.Linear(2048, 6)
    with torch.no_grad():
        network.fc.weight.mul_(1e-3)  # untrained features of 0-255 input are huge
    state = {f"module.{k}": v for k, v in network.state_dict().items()}
    torch.save({"iteration": 10000, "state_dict": state, "optimizer": {}}, folder / "snapshot.pth.tar")
    lines = "".join(f"{m},{s}\n" for m, s in zip(MEANS, SDS, strict=True))
    (folder / "standardization_parameters.txt").write_text(f"mean,stdev\n{lines}")
    (folder / "calibration_factors.txt").write_text("factor\n" + "".join(f"{f}\n" for f in FACTORS))
    (folder / "metadata.txt").write_text(TABLE)
    return folder


@pytest.fixture(scope="module")
def imported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "organs"
    import_mimir(published, out)
    return out


def test_targets_map_by_field_then_by_name_then_stay_the_users_own(imported: Path) -> None:
    targets = load_module(imported).manifest.targets
    assert [t.name for t in targets] == ["liverVolume", "AtlasVatVolume", "SpleenSizeOwn"]
    assert [t.lower for t in targets] == [0.0, 0.0, None]
    assert verify_module(imported) == []


def test_estimates_equal_the_reference_formula(published: Path, imported: Path) -> None:
    """Means to 1e-4 relative, variances with the square of the divisor."""
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    network = torchvision.models.resnet50(weights=None)
    network.fc = torch.nn.Linear(2048, 6)
    state = torch.load(published / "snapshot.pth.tar", weights_only=True)["state_dict"]
    network.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    with torch.inference_mode():
        raw = network.eval()(images.float()).reshape(2, 3, 2).double().numpy()
    module = load_module(imported)
    estimates = module.to_estimates(module.predict_standardized(images))
    mean = (raw[..., 0] * SDS + MEANS) / DIVISORS
    variance = np.exp(raw[..., 1]) * np.square(SDS) * FACTORS / np.square(DIVISORS)
    assert estimates.mean == pytest.approx(mean, rel=1e-4)
    assert estimates.total_variance == pytest.approx(variance, rel=1e-3)
    assert (estimates.epistemic == 0).all()


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_code_in_a_pickle_is_not_executed(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("standardization_parameters.txt", "calibration_factors.txt", "metadata.txt"):
        (bad / name).write_bytes((published / name).read_bytes())
    torch.save({"state_dict": _Evil()}, bad / "snapshot.pth.tar")
    with pytest.raises(ModuleError, match="nothing was executed"):
        import_mimir(bad, tmp_path / "out")
    (bad / "snapshot.pth.tar").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(ModuleError, match=r"snapshot\.pth\.tar"):
        import_mimir(bad, tmp_path / "out")
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.txt", "Name,Field,Unit,Divisor\nLiver Volume,,L,1000\n", "1 targets"),
        ("metadata.txt", TABLE.replace("1000", "0"), "above 0"),
        ("metadata.txt", TABLE.replace("1000", "many"), "line 2"),
        ("metadata.txt", TABLE.replace("Spleen size (own)", "liver-volume"), "twice"),
        ("standardization_parameters.txt", "mean,stdev\n1,2\n3,nan\n5,6\n", "line 3"),
        ("calibration_factors.txt", "factor\n1\n1\n-1\n", "line 4"),
        ("calibration_factors.txt", "factor\n1\n1\n1e400\n", "line 4"),
        ("metadata.txt", TABLE + "x" * 200_000, "no table"),
        ("metadata.txt", TABLE + "x" * 2_000_000, "at most"),
    ],
)
def test_damaged_tables_name_file_and_line(published: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in published.iterdir():
        (copy / file.name).symlink_to(file)
    (copy / name).unlink()
    (copy / name).write_text(text)
    with pytest.raises(ModuleError, match=message):
        import_mimir(copy, tmp_path / "out")


def test_a_folder_that_is_no_published_module_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModuleError, match=r"metadata\.txt"):
        import_mimir(tmp_path, tmp_path / "out")


def test_another_unit_is_kept_and_never_taken_for_the_registrys(published: Path, tmp_path: Path) -> None:
    """The values follow the formula; a label that says L for numbers in mL would be off by 1,000."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in published.iterdir():
        (copy / file.name).symlink_to(file)
    (copy / "metadata.txt").unlink()
    rows = "Liver Volume,,mL,1\nVAT volume,22407-2.0,Litres,1\nHeight,,,1\n"
    (copy / "metadata.txt").write_text("Name,Field,Unit,Divisor\r\n" + rows.replace("\n", "\r\n").rstrip())
    manifest = import_mimir(copy, tmp_path / "out")
    assert [(t.name, t.unit, t.lower) for t in manifest.targets] == [
        ("liverVolume", "mL", 0.0),
        ("AtlasVatVolume", "L", 0.0),
        ("height", "cm", 0.0),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module.fc.bias": torch.tensor(1.0)}, "last layer of 1 outputs"),
        ({"module.fc.bias": torch.full((6,), torch.nan)}, "NaN"),
        ({"module.conv1.weight": torch.zeros(64, 3, 3, 3)}, "not a torchvision ResNet50"),
        ({"module.extra": torch.zeros(1)}, "not a torchvision ResNet50"),
        ({"module.fc.bias": "text"}, "no table of tensors"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    published: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("standardization_parameters.txt", "calibration_factors.txt", "metadata.txt"):
        (copy / name).symlink_to(published / name)
    snapshot = torch.load(published / "snapshot.pth.tar", weights_only=True)
    snapshot["state_dict"] |= change
    torch.save(snapshot, copy / "snapshot.pth.tar")
    with pytest.raises(ModuleError, match=message) as caught:
        import_mimir(copy, tmp_path / "out")
    assert "snapshot.pth.tar" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_truncated_snapshot_is_an_error(published: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("standardization_parameters.txt", "calibration_factors.txt", "metadata.txt"):
        (copy / name).symlink_to(published / name)
    (copy / "snapshot.pth.tar").write_bytes((published / "snapshot.pth.tar").read_bytes()[:1_000_000])
    with pytest.raises(ModuleError, match="cannot be read as a torch file"):
        import_mimir(copy, tmp_path / "out")

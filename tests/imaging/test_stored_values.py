"""What a stored value means in DICOM: every element that changes it is honoured, refused or flagged, on every route.

The table is in ``docs/stored-values.md``; the tests follow its order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from tests.support.small_scans import COLS, ROWS, encode, make_slices, outcome, same, select, write_zip
from ukb_infer.errors import ScanError
from ukb_infer.imaging import read_stations
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Stations

OPTIONS = ReadingOptions(expected_stations=0)
PHILIPS = "Philips MR Imaging DD 001"

Edit = Callable[[list[Dataset]], object]


def stored(ds: Dataset) -> np.ndarray:
    return np.frombuffer(ds.PixelData, "<u2").reshape(ROWS, COLS)


def put(ds: Dataset, pixels: np.ndarray) -> None:
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()


def describe(ds: Dataset, bits: int, high: int | None = None, signed: bool = False, allocated: int = 16) -> None:
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, bits, bits - 1 if high is None else high
    ds.PixelRepresentation = int(signed)


def each(change: Callable[[Dataset], object]) -> Edit:
    return lambda slices: [change(ds) for ds in slices]


def setting(**values: object) -> Edit:
    return each(lambda ds: [setattr(ds, keyword, value) for keyword, value in values.items()])


def scan(edit: Edit | None = None, stations: int = 1) -> list[Dataset]:
    slices = make_slices(stations, "WF")
    if edit is not None:
        edit(slices)
    return slices


def as_syntax(slices: list[Dataset], syntax: str) -> list[Dataset]:
    """Slices in another transfer syntax, decoding to the same words."""
    for ds in slices:
        if syntax == ExplicitVRBigEndian:
            width = max(1, ds.BitsAllocated // 8)
            ds.PixelData = np.frombuffer(ds.PixelData, f"<u{width}").astype(f">u{width}").tobytes()
        if syntax == RLELossless:
            ds.compress(RLELossless, generate_instance_uid=False)
        else:
            ds.file_meta.TransferSyntaxUID = UID(syntax)
    return slices


#: Name: (transfer syntax or None, whether the fast path may be used).
ROUTES = {
    "fast": (None, True),
    "pydicom": (None, False),
    "implicit": (ImplicitVRLittleEndian, True),
    "big endian": (ExplicitVRBigEndian, True),
    "deflated": (DeflatedExplicitVRLittleEndian, True),
}


def read(folder: Path, edit: Edit | None, route: str, stations: int = 1) -> Stations:
    syntax, fast = ROUTES[route]
    slices = scan(edit, stations)
    if syntax is not None:
        as_syntax(slices, syntax)
    return read_stations(write_zip(folder / "a.zip", slices), OPTIONS, use_fast_path=fast)


def refusal(folder: Path, edit: Edit, route: str) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read(folder, edit, route)
    return caught.value


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Stations:
    return read(tmp_path_factory.mktemp("clean"), None, "fast")


# -- bits and sign ----------------------------------------------------------------------------------------------------


def garbage_above(ds: Dataset) -> None:
    describe(ds, 12)
    put(ds, stored(ds) | np.where(np.arange(COLS) % 7 == 0, 0x4000, 0).astype("<u2"))


def overlay_above(ds: Dataset) -> None:
    garbage_above(ds)
    ds.add_new(0x60000010, "US", ROWS)
    ds.add_new(0x60000011, "US", COLS)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", 14)


def shifted(ds: Dataset) -> None:
    describe(ds, 12, high=15)
    put(ds, stored(ds) << 4)


def no_sign_extension(ds: Dataset) -> None:
    """Signed values from -100 on, in 12 bits, the four above them 0; the rescale intercept brings them back."""
    describe(ds, 12, signed=True)
    put(ds, ((stored(ds).astype(int) - 100) & 0xFFF).astype("<u2"))
    ds.RescaleSlope, ds.RescaleIntercept = "1", "100"


def sign_extended(ds: Dataset) -> None:
    describe(ds, 12, signed=True)
    put(ds, (stored(ds).astype(int) - 100).astype("<i2"))
    ds.RescaleSlope, ds.RescaleIntercept = "1", "100"


def long_words(ds: Dataset) -> None:
    describe(ds, 12, allocated=32)
    put(ds, stored(ds).astype("<u4") | np.uint32(0xABC00000))


HONOURED_BITS: dict[str, tuple[Edit, tuple[Reason, ...]]] = {
    "garbage above": (each(garbage_above), (Reason.UNUSED_BITS_MASKED,)),
    "overlay above": (each(overlay_above), (Reason.UNUSED_BITS_MASKED,)),
    "one slice with garbage": (lambda s: garbage_above(s[5]), (Reason.UNUSED_BITS_MASKED,)),
    "value in the upper bits": (each(shifted), ()),
    "no sign extension": (each(no_sign_extension), (Reason.RESCALE_APPLIED,)),
    "sign extension": (each(sign_extended), (Reason.RESCALE_APPLIED,)),
    "words of 32 bits": (each(long_words), (Reason.UNUSED_BITS_MASKED,)),
    "no BitsStored, no HighBit": (each(lambda ds: [delattr(ds, k) for k in ("BitsStored", "HighBit")]), ()),
    "some slices signed": (lambda s: [describe(ds, 12, signed=True) for ds in s[::2]], ()),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", HONOURED_BITS)
def test_bits_and_sign_are_honoured(tmp_path: Path, clean: Stations, case: str, route: str) -> None:
    edit, flags = HONOURED_BITS[case]
    found = read(tmp_path, edit, route)
    assert same(found, clean)
    assert found.flags == flags


@pytest.mark.parametrize("case", ["garbage above", "no sign extension", "sign extension"])
def test_bits_of_run_length_encoded_words_are_honoured(tmp_path: Path, clean: Stations, case: str) -> None:
    edit, flags = HONOURED_BITS[case]
    found = read_stations(write_zip(tmp_path / "a.zip", as_syntax(scan(edit), RLELossless)), OPTIONS)
    assert same(found, clean)
    assert found.flags == flags


@pytest.mark.parametrize("route", ["fast", "pydicom", "implicit", "big endian"])
def test_bytes_are_read_alike(tmp_path: Path, route: str) -> None:
    """8 bits in words (OW): in big endian data the second pixel comes first."""

    def narrow(ds: Dataset) -> None:
        describe(ds, 8, allocated=8)
        put(ds, (stored(ds) % 251).astype("u1"))

    def swapped(slices: list[Dataset]) -> None:
        for ds in slices:
            narrow(ds)
            if route == "big endian":
                ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()

    found = read(tmp_path, swapped, route)
    expected = [stored(ds) % 251 for ds in select(scan(), 1, "W")]
    assert np.array_equal(found.stations[0].water.transpose(2, 0, 1), expected)


@pytest.mark.parametrize("bits", [-32768, -1])
def test_negative_values_stay_negative(tmp_path: Path, bits: int) -> None:
    def negative(ds: Dataset) -> None:
        describe(ds, 16, signed=True)
        pixels = stored(ds).astype("<i2")
        pixels[0, 0] = bits
        put(ds, pixels)

    for route in ("fast", "pydicom"):
        assert read(tmp_path, each(negative), route).stations[0].fat.min() == bits


def low_bits(ds: Dataset) -> None:
    describe(ds, 12, high=15)


def bit_inside(ds: Dataset) -> None:
    overlay_above(ds)
    describe(ds, 16)


REFUSED: dict[str, tuple[Edit, Reason, str]] = {
    "bits below the value": (each(low_bits), Reason.UNSUPPORTED_PIXELS, "HighBit 15"),
    "overlay inside the value": (each(bit_inside), Reason.UNSUPPORTED_PIXELS, "bit 14"),
    "more stored than allocated": (setting(BitsStored=20, HighBit=19), Reason.UNREADABLE_DICOM, "BitsStored 20"),
    "high bit too low": (setting(HighBit=7), Reason.UNREADABLE_DICOM, "HighBit 7"),
    "8 bits that are 16": (
        setting(BitsAllocated=8, BitsStored=8, HighBit=7),
        Reason.UNREADABLE_DICOM,
        "1280 bytes, expected 640",
    ),
    "two rows more": (setting(Rows=ROWS - 2), Reason.UNREADABLE_DICOM, "expected 1152"),
    "64 bits": (setting(BitsAllocated=64), Reason.UNREADABLE_DICOM, "BitsAllocated 64"),
    "one bit": (setting(BitsAllocated=1, BitsStored=1, HighBit=0), Reason.UNREADABLE_DICOM, "BitsAllocated 1"),
    "representation": (setting(PixelRepresentation=2), Reason.UNREADABLE_DICOM, "PixelRepresentation 2"),
    "inverted": (setting(PhotometricInterpretation="MONOCHROME1"), Reason.UNSUPPORTED_PIXELS, "MONOCHROME1"),
    "palette": (setting(PhotometricInterpretation="PALETTE COLOR"), Reason.UNSUPPORTED_PIXELS, "PALETTE COLOR"),
    "colour space": (setting(PhotometricInterpretation="YBR_FULL"), Reason.UNSUPPORTED_PIXELS, "YBR_FULL"),
    "unknown": (setting(PhotometricInterpretation="SOMEBODY"), Reason.UNSUPPORTED_PIXELS, "another value"),
    "colour": (
        setting(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
        Reason.UNSUPPORTED_PIXELS,
        "3 samples",
    ),
    "phase": (setting(ComplexImageComponent="PHASE"), Reason.UNSUPPORTED_PIXELS, "PHASE"),
    "logarithm": (setting(PixelIntensityRelationship="LOG"), Reason.UNSUPPORTED_PIXELS, "LOG"),
    "sign": (setting(PixelIntensityRelationshipSign=-1), Reason.UNSUPPORTED_PIXELS, "Sign -1"),
    "percent": (setting(RescaleType="PCT"), Reason.UNSUPPORTED_PIXELS, "PCT"),
    "other unit": (setting(RescaleType="MS"), Reason.UNSUPPORTED_PIXELS, "another value"),
    "slope 0": (setting(RescaleSlope="0"), Reason.UNSUPPORTED_PIXELS, "RescaleSlope 0"),
    "two frames": (setting(NumberOfFrames=2), Reason.MULTIFRAME, "2 frames"),
}


@pytest.mark.parametrize("route", ["fast", "pydicom", "big endian"])
@pytest.mark.parametrize("case", REFUSED)
def test_other_values_than_signal_are_refused(tmp_path: Path, case: str, route: str) -> None:
    edit, reason, words = REFUSED[case]
    error = refusal(tmp_path, edit, route)
    assert error.reason is reason
    assert words in error.message
    assert "SOMEBODY" not in error.message


@pytest.mark.parametrize("case", REFUSED)
def test_one_such_slice_among_others_is_enough(tmp_path: Path, case: str) -> None:
    """The fast path has read the header of the series by then."""
    edit, reason, _ = REFUSED[case]
    for route in ("fast", "pydicom"):
        error = refusal(tmp_path, lambda slices: edit(slices[13:14]), route)
        assert error.reason is reason


def lookup_table(ds: Dataset) -> None:
    item = Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 16])
    item.add_new(0x00283006, "US", list(range(4096, 0, -1)))
    ds.ModalityLUTSequence = Sequence([item])


def palette(ds: Dataset) -> None:
    ds.add_new(0x00281101, "US", [256, 0, 16])


SEQUENCES: dict[str, tuple[Callable[[Dataset], object], str]] = {
    "modality lookup table": (lookup_table, "Modality LUT"),
    "supplemental palette": (palette, "palette"),
    "two mappings": (lambda ds: [real_world(ds, 2.0), ds.RealWorldValueMappingSequence.append(Dataset())], "2 real"),
    "table of a mapping": (lambda ds: real_world(ds, None), "is a table"),
    "percent": (lambda ds: real_world(ds, 2.0, "%"), "in a unit"),
    "range": (lambda ds: real_world(ds, 2.0, last=300), "0 to 300"),
    "Philips scale slope of 0": (lambda ds: philips(ds, 0.0), "scale slope of 0"),
}


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("case", SEQUENCES)
def test_tables_and_mappings_that_are_refused(tmp_path: Path, case: str, few: bool, undefined: bool) -> None:
    change, words = SEQUENCES[case]

    def edit(slices: list[Dataset]) -> None:
        for ds in slices:
            for keyword in ("ModalityLUTSequence", "RealWorldValueMappingSequence"):
                if few:
                    setattr(ds, keyword, Sequence())  # the same elements in every slice, empty in most
        for ds in slices[7:8] if few else slices:
            change(ds)
            for element in ds:
                if element.VR == "SQ":
                    element.is_undefined_length = undefined

    for route in ("fast", "pydicom", "implicit"):
        error = refusal(tmp_path, edit, route)
        assert error.reason is Reason.UNSUPPORTED_PIXELS
        assert words in error.message


# -- scaling ----------------------------------------------------------------------------------------------------------


def real_world(ds: Dataset, slope: float | None, unit: str = "1", last: int = 65535) -> None:
    item, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator = unit, "UCUM"
    item.MeasurementUnitsCodeSequence = Sequence([code])
    item.add_new(0x00409211, "US", last)
    item.add_new(0x00409216, "US", 0)
    if slope is None:
        item.RealWorldValueLUTData = [1.0, 2.0]
    else:
        item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, 0.0
    ds.RealWorldValueMappingSequence = Sequence([item])


def philips(ds: Dataset, scale: float, slope: float | None = None, creator: str = PHILIPS) -> None:
    block = ds.private_block(0x2005, creator, create=True)
    block.add_new(0x0E, "FL", scale)
    if slope is not None:
        ds.RescaleSlope, ds.RescaleIntercept = str(slope), "0"


def divided(ds: Dataset, factor: int) -> None:
    """Pixels that are a multiple of 12, divided by a factor."""
    put(ds, (stored(ds) // 12 * 12 // factor).astype("<u2"))


def rescale(ds: Dataset, factor: int) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = str(factor), "0"


def per_slice(state: Callable[[Dataset, int], object]) -> Edit:
    """Divide the values of every slice by a factor of its own, 1 to 4, and state the factor."""

    def edit(slices: list[Dataset]) -> None:
        for index, ds in enumerate(slices):
            divided(ds, 1 + index % 4)
            state(ds, 1 + index % 4)

    return edit


SCALED: dict[str, Edit] = {
    "rescale": per_slice(rescale),
    "real-world mapping": per_slice(lambda ds, factor: real_world(ds, float(factor))),
    "mapping before rescale": per_slice(lambda ds, factor: [rescale(ds, 7), real_world(ds, float(factor))]),
    "Philips": per_slice(lambda ds, factor: philips(ds, 1 / factor, slope=factor * 3)),
    "rescale per contrast": lambda s: [
        [divided(ds, factor), rescale(ds, factor)]
        for contrast, factor in (("W", 3), ("F", 2))
        for station in (1, 2)
        for ds in select(s, station, contrast)
    ],
    "rescale per station": lambda s: [
        [divided(ds, station + 1), rescale(ds, station + 1)]
        for contrast in "WF"
        for station in (1, 2)
        for ds in select(s, station, contrast)
    ],
    "intercept per slice": lambda s: [
        [divided(ds, 1), put(ds, stored(ds) + 5 * i), setattr(ds, "RescaleIntercept", str(-5 * i))]
        for i, ds in enumerate(s)
    ],
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", SCALED)
def test_scaling_of_each_slice_is_applied_to_it_and_flagged(tmp_path: Path, case: str, route: str) -> None:
    expected = read(tmp_path, each(lambda ds: divided(ds, 1)), "fast", stations=2)
    found = read(tmp_path, SCALED[case], route, stations=2)
    assert found.flags == (Reason.RESCALE_APPLIED,)
    for one, other in zip(found.stations, expected.stations, strict=True):
        assert np.allclose(one.water, other.water, rtol=1e-6)
        assert np.allclose(one.fat, other.fat, rtol=1e-6)


@pytest.mark.parametrize("fast", [True, False])
def test_parts_of_a_series_with_scalings_of_their_own_are_joined(tmp_path: Path, fast: bool) -> None:
    def edit(slices: list[Dataset]) -> None:
        for ds in slices:
            factor = 2 if ds.InstanceNumber <= 4 else 3
            divided(ds, factor)
            rescale(ds, factor)
            ds.SeriesInstanceUID += f".{factor}"

    expected = read(tmp_path, each(lambda ds: divided(ds, 1)), "fast")
    found = read_stations(write_zip(tmp_path / "b.zip", scan(edit)), OPTIONS, use_fast_path=fast)
    assert set(found.flags) == {Reason.SERIES_JOINED, Reason.RESCALE_APPLIED}
    assert same(found, expected)


def test_copies_that_differ_only_in_scaling_are_not_the_same(tmp_path: Path) -> None:
    """Nothing tells which of the two is newer."""
    slices = scan()
    copies = [ds for ds in scan() if ds.SeriesDescription.endswith("W") and ds.SeriesNumber == 4]
    fats = [ds for ds in scan() if ds.SeriesDescription.endswith("F") and ds.SeriesNumber == 3]
    for ds in copies + fats:
        rescale(ds, 2)
        ds.SeriesInstanceUID += ".9"
    with pytest.raises(ScanError) as caught:
        read_stations(write_zip(tmp_path / "a.zip", slices + copies + fats), OPTIONS)
    assert caught.value.reason is Reason.AMBIGUOUS_SERIES


def test_a_mapping_of_1_is_said_to_replace_the_rescale_slope(tmp_path: Path, clean: Stations) -> None:
    found = read(tmp_path, each(lambda ds: [rescale(ds, 7), real_world(ds, 1.0)]), "fast")
    assert same(found, clean)
    assert found.flags == (Reason.RESCALE_APPLIED,)
    assert "instead of the rescale slope" in found.messages[0]


@pytest.mark.parametrize("creator", ["Philips MR Imaging DD 001", "SOMEBODY ELSE"])
def test_a_scale_slope_counts_only_in_the_block_of_its_maker(tmp_path: Path, clean: Stations, creator: str) -> None:
    def edit(slices: list[Dataset]) -> None:
        for ds in slices:
            ds.private_block(0x2005, "another block", create=True)
            philips(ds, 0.5, creator=creator)

    for route in ("fast", "pydicom", "implicit"):
        found = read(tmp_path, edit, route)
        assert found.flags == ((Reason.RESCALE_APPLIED,) if creator == PHILIPS else ())
        assert np.array_equal(found.stations[0].fat, clean.stations[0].fat * (2.0 if creator == PHILIPS else 1.0))


@pytest.mark.parametrize("route", ["fast", "pydicom"])
@pytest.mark.parametrize(
    ("has_scale", "reason"),
    [
        (lambda ds: ds.SeriesDescription.endswith("W"), Reason.WATER_FAT_MISMATCH),
        (lambda ds: ds.InstanceNumber < 5, Reason.GEOMETRY_INCONSISTENT),
    ],
    ids=["water alone", "some slices"],
)
def test_values_of_two_kinds_are_never_mixed(
    tmp_path: Path, has_scale: Callable[[Dataset], bool], reason: Reason, route: str
) -> None:
    """Where only a part states Philips's scale slope, the rest is not in its unit."""
    with pytest.raises(ScanError) as caught:
        read(tmp_path, each(lambda ds: has_scale(ds) and philips(ds, 0.5)), route)
    assert caught.value.reason is reason
    assert "Philips scale slope" in caught.value.message


def test_normalized_rescale_of_1_changes_nothing(tmp_path: Path, clean: Stations) -> None:
    found = read(tmp_path, setting(RescaleSlope="1", RescaleIntercept="0", RescaleType="normalized"), "fast")
    assert same(found, clean)
    assert found.flags == ()


# -- padding ----------------------------------------------------------------------------------------------------------


def padded(value: int, limit: int | None = None, signed: bool = False, intercept: int = 0) -> Edit:
    """Rows 0 to 2 hold values of padding; the clean scan has no signal there."""

    def change(ds: Dataset) -> None:
        describe(ds, 16, signed=signed)
        pixels = stored(ds).astype(int) - intercept
        pixels[:3] = value if limit is None else np.linspace(value, limit, COLS).astype(int)
        put(ds, pixels.astype("<i2" if signed else "<u2"))
        ds.add_new(0x00280120, "SS" if signed else "US", value)
        if limit is not None:
            ds.add_new(0x00280121, "SS" if signed else "US", limit)
        if intercept:
            ds.RescaleIntercept, ds.RescaleSlope = str(intercept), "1"

    return each(change)


def without_rows(clean: Stations) -> list[np.ndarray]:
    made = [np.array(station.water) for station in clean.stations]
    for voxels in made:
        voxels[:3] = 0
    return made


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "edit",
    [
        padded(4095),
        padded(65535),
        padded(-2000, signed=True),
        padded(60000, 60100),
        padded(60100, 60000),
        padded(-2000, -1900, signed=True),
        padded(5000, intercept=-200),
    ],
)
def test_padding_is_no_signal(tmp_path: Path, clean: Stations, edit: Edit, route: str) -> None:
    found = read(tmp_path, edit, route)
    assert Reason.PADDING_REPLACED in found.flags
    for station, expected in zip(found.stations, without_rows(clean), strict=True):
        assert np.array_equal(station.water, expected)


def test_padding_of_signed_pixels_written_without_sign(tmp_path: Path, clean: Stations) -> None:
    def edit(slices: list[Dataset]) -> None:
        padded(-2000, signed=True)(slices)
        for ds in slices:
            ds.add_new(0x00280120, "US", 63536)

    for route in ("fast", "pydicom"):
        assert np.array_equal(read(tmp_path, edit, route).stations[0].water, without_rows(clean)[0])


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_padding_that_no_pixel_has_changes_nothing(tmp_path: Path, clean: Stations, value: int) -> None:
    for route in ("fast", "pydicom"):
        found = read(tmp_path, each(lambda ds: ds.add_new(0x00280120, "US", value)), route)
        assert same(found, clean)
        assert found.flags == ()


def test_padding_in_the_unused_bits_is_told_from_values_below_them(tmp_path: Path, clean: Stations) -> None:
    """63536 in words of which 12 bits count: masked it would be 2096, which a pixel may have."""

    def change(ds: Dataset) -> None:
        pixels = stored(ds).copy()
        pixels[:3] = 63536
        pixels[5, 5] = 2096
        put(ds, pixels)
        ds.add_new(0x00280120, "US", 63536)

    for route in ("fast", "pydicom"):
        found = read(tmp_path, each(change), route)
        assert set(found.flags) == {Reason.UNUSED_BITS_MASKED, Reason.PADDING_REPLACED}
        assert found.stations[0].water[5, 5, 0] == 2096
        assert (found.stations[0].water[:3] == 0).all()


# -- flags ------------------------------------------------------------------------------------------------------------

FLAGGED: dict[str, tuple[Edit, Reason, str]] = {
    "lossy": (setting(LossyImageCompression="01"), Reason.LOSSY_COMPRESSION, "lossy"),
    "lossy once": (lambda s: setattr(s[20], "LossyImageCompression", "01"), Reason.LOSSY_COMPRESSION, "station 2"),
    "text": (setting(BurnedInAnnotation="YES"), Reason.BURNED_IN_ANNOTATION, "text"),
    "aspect": (setting(PixelAspectRatio=["1", "2"]), Reason.GEOMETRY_DISAGREES, "PixelAspectRatio"),
    "imager": (setting(ImagerPixelSpacing=["1", "1"]), Reason.GEOMETRY_DISAGREES, "ImagerPixelSpacing"),
    "tilt": (setting(GantryDetectorTilt="5"), Reason.GEOMETRY_DISAGREES, "GantryDetectorTilt"),
    "direction": (setting(PatientOrientation=["R", "P"]), Reason.GEOMETRY_DISAGREES, "PatientOrientation"),
    "animal": (setting(AnatomicalOrientationType="QUADRUPED"), Reason.GEOMETRY_DISAGREES, "no person"),
    "spacing": (setting(SpacingBetweenSlices="2.5"), Reason.GEOMETRY_DISAGREES, "SpacingBetweenSlices"),
    "every other slice left out": (
        lambda s: [
            setting(SpacingBetweenSlices="5")(s),
            *[s.remove(ds) for ds in list(s) if ds.InstanceNumber % 2 == 0],
        ],
        Reason.GEOMETRY_DISAGREES,
        "SpacingBetweenSlices",
    ),
    "location": (
        each(lambda ds: setattr(ds, "SliceLocation", str(3 * ds.InstanceNumber))),
        Reason.GEOMETRY_DISAGREES,
        "SliceLocation",
    ),
    "frames of stations": (
        each(lambda ds: setattr(ds, "FrameOfReferenceUID", f"1.2.3.{ds.SeriesNumber // 5}")),
        Reason.GEOMETRY_DISAGREES,
        "2 frames of reference",
    ),
    "frames of slices": (
        each(lambda ds: setattr(ds, "FrameOfReferenceUID", f"1.2.3.{ds.InstanceNumber}")),
        Reason.GEOMETRY_DISAGREES,
        "9 frames of reference",
    ),
    "prone": (setting(PatientPosition="HFP"), Reason.PATIENT_NOT_SUPINE, "PatientPosition"),
    "on the side": (setting(PatientPosition="FFDR"), Reason.PATIENT_NOT_SUPINE, "PatientPosition"),
}


@pytest.mark.parametrize("route", ["fast", "pydicom", "implicit"])
@pytest.mark.parametrize("case", FLAGGED)
def test_statements_that_are_flagged(tmp_path: Path, case: str, route: str) -> None:
    edit, reason, words = FLAGGED[case]
    found = read(tmp_path, edit, route, stations=2)
    whole = read(tmp_path, None, "fast", stations=2)
    for one, other in zip(found.stations, whole.stations, strict=True):
        assert np.array_equal(one.water, other.water[:, :, :: 2 if "left out" in case else 1])
    assert found.flags == (reason,)
    assert words in found.messages[0]


HARMLESS: dict[str, Edit] = {
    "window": setting(WindowCenter="100", WindowWidth="50", VOILUTFunction="SIGMOID"),
    "presentation": setting(PresentationLUTShape="INVERSE"),
    "planar configuration": setting(PlanarConfiguration=1),
    "extremes": setting(SmallestImagePixelValue=5, LargestImagePixelValue=6),
    "no photometric interpretation": each(lambda ds: delattr(ds, "PhotometricInterpretation")),
    "magnitude": setting(ComplexImageComponent="MAGNITUDE"),
    "lossless": setting(LossyImageCompression="00", BurnedInAnnotation="NO"),
    "aspect": setting(PixelAspectRatio=["1", "1"]),
    "imager": setting(ImagerPixelSpacing=["2.23214", "2.23214"]),
    "no tilt": setting(GantryDetectorTilt="0"),
    "direction": setting(PatientOrientation=["L", "P"], AnatomicalOrientationType="BIPED"),
    "feet first": setting(PatientPosition="FFS"),
    "spacing": setting(SpacingBetweenSlices="5"),
    "gap": setting(SpacingBetweenSlices="1", SliceThickness="4"),
    "location": each(lambda ds: setattr(ds, "SliceLocation", str(ds.ImagePositionPatient[2]))),
    "location the other way": each(lambda ds: setattr(ds, "SliceLocation", str(12.5 - ds.ImagePositionPatient[2]))),
    "location in one slice": lambda s: setattr(s[3], "SliceLocation", "1"),
    "one frame": setting(FrameOfReferenceUID="1.2.3"),
    "no overlay in the pixels": each(lambda ds: ds.add_new(0x60000102, "US", 0)),
}


@pytest.mark.parametrize("route", ["fast", "pydicom", "implicit"])
@pytest.mark.parametrize("case", HARMLESS)
def test_statements_without_effect(tmp_path: Path, clean: Stations, case: str, route: str) -> None:
    found = read(tmp_path, HARMLESS[case], route)
    assert same(found, clean)
    assert found.flags == ()


def test_directions_that_are_no_unit_vectors_are_refused(tmp_path: Path) -> None:
    for route in ("fast", "pydicom"):
        error = refusal(tmp_path, setting(ImageOrientationPatient=[2, 0, 0, 0, 1, 0]), route)
        assert error.reason is Reason.IMPLAUSIBLE_GEOMETRY


@pytest.mark.parametrize("damage", [b"12x4", b"12.4", b"\xff\xfe\xff "])
@pytest.mark.parametrize("keyword", ["PixelAspectRatio", "SpacingBetweenSlices", "SliceThickness", "SliceLocation"])
def test_damaged_second_statements_are_ignored_alike(
    tmp_path: Path, clean: Stations, keyword: str, damage: bytes
) -> None:
    """Nothing is computed of them."""
    slices = scan(setting(**{keyword: ["1111", "1111"] if keyword == "PixelAspectRatio" else "1111"}))
    damaged = [encode(ds).replace(b"1111", damage) for ds in slices]
    path = write_zip(tmp_path / "a.zip", damaged)
    outcomes = {outcome(lambda fast=fast: read_stations(path, OPTIONS, use_fast_path=fast)) for fast in (True, False)}
    assert outcomes <= {"", "geometry_disagrees"}  # 12.4 is a number
    assert len(outcomes) == 1
    assert same(read_stations(path, OPTIONS), clean)


def test_lossy_transfer_syntaxes_are_flagged(tmp_path: Path) -> None:
    """JPEG 2000 may be lossy: flagged unless the file says that it is not."""
    from ukb_infer.imaging.readers.dicom_values import value_findings

    def found(syntax: str, lossy: str) -> list[Reason]:
        text = {"TransferSyntaxUID": syntax, "LossyImageCompression": lossy, "BurnedInAnnotation": ""}
        return [finding.reason for finding in value_findings(text)]

    for end, lossy, expected in ((50, "", 1), (50, "00", 1), (91, "", 1), (91, "00", 0), (90, "", 0), (70, "", 0)):
        assert len(found(f"1.2.840.10008.1.2.4.{end}", lossy)) == expected


def test_float_pixels_are_refused_as_such(tmp_path: Path) -> None:
    def edit(slices: list[Dataset]) -> None:
        for ds in slices:
            values = stored(ds).astype("<f4").tobytes()
            del ds.PixelData
            ds.BitsAllocated = 32
            ds.FloatPixelData = values

    for route in ("fast", "pydicom", "implicit"):
        error = refusal(tmp_path, edit, route)
        assert error.reason is Reason.UNSUPPORTED_PIXELS
        assert "FloatPixelData" in error.message


def test_meta_header_is_what_the_routes_suppose() -> None:
    """The test's big-endian words differ from the little-endian ones, so that the route is tested at all."""
    little, big = scan()[0], as_syntax(scan(), ExplicitVRBigEndian)[0]
    assert little.PixelData != big.PixelData
    assert struct.unpack("<H", little.PixelData[:2]) == struct.unpack(">H", big.PixelData[:2])

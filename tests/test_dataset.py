import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import Tensor, nn

from stages import dataset
from stages.columns import Category, Columns, Number
from stages.dataset import Dataset
from stages.runtime.archive import TAIL
from stages.runtime.errors import UserError

X, Y = torch.rand(5, 2), torch.rand(5, 1)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "points.pt")


@pytest.mark.parametrize("variance", [None, 0.0, 0.25])
def test_what_is_written_is_read_back(path: str, variance: float | None) -> None:
    dataset.write(path, Dataset(X, Y, variance))
    x, y, noise_variance, columns, decisions, digest = dataset.read(path)
    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert noise_variance == variance
    assert (columns, decisions, digest) == (None, None, None)


NO_COLUMNS = "columns must be JSON text as stages/columns/encoder.py describes it"
KEYS = "must hold a dict of x, y and, optionally, noise_variance, columns, decisions, digest"
DECISIONS = "decisions must be JSON text, a mapping of names to texts"
SEX = Category(name="sex", levels=["female", "male"])
COLUMNS = Columns(features=[SEX], targets=[Number(name="größe, in m")])


def test_the_names_of_the_columns_are_read_back(path: str) -> None:
    dataset.write(path, Dataset(X, Y, columns=COLUMNS))
    assert dataset.read(path).columns == dataset.read(path).names == COLUMNS


def test_what_was_decided_about_the_columns_is_read_back(path: str) -> None:
    decisions = {"größe": "left out: the same value in all training rows"}
    dataset.write(path, Dataset(X, Y, columns=COLUMNS, decisions=decisions))
    assert dataset.read(path).decisions == decisions


def test_the_digest_of_the_rows_is_read_back(path: str) -> None:
    dataset.write(path, Dataset(X, Y, digest="0a"))
    assert dataset.read(path).digest == "0a"


def test_columns_without_names_have_letters(path: str) -> None:
    assert Dataset(X, Y).names.feature_names == ["x_0", "x_1"]
    assert Dataset(Y, X).names.target_names == ["y_0", "y_1"]


def test_names_of_other_columns_are_not_written(path: str) -> None:
    with pytest.raises(UserError, match="columns must name 1 of x and 2 of y, got 2 and 1$"):
        dataset.write(path, Dataset(Y, X, columns=COLUMNS))
    assert not Path(path).exists()


CLASSES = Columns(features=COLUMNS.features, targets=[Category(name="kind", levels=["a", "b", "c"])])
ONE_HOT = torch.eye(3)[[2, 0, 1, 1, 2]]


def test_the_classes_of_rows_are_read_back_and_a_row_of_none_is_zeros(path: str) -> None:
    y = ONE_HOT.clone()
    y[3] = 0
    dataset.write(path, Dataset(X, y, columns=CLASSES))
    points = dataset.read(path)
    assert torch.equal(points.y, y)
    assert points.classes is not None
    assert points.classes[[0, 1, 2, 4]].tolist() == [2, 0, 1, 2]
    assert Dataset(X, Y).classes is None


@pytest.mark.parametrize("y", [ONE_HOT * 0.5, -ONE_HOT, ONE_HOT + ONE_HOT.roll(1, 1), 2 * ONE_HOT])
def test_anything_but_one_class_for_a_row_is_refused(path: str, y: Tensor) -> None:
    with pytest.raises(UserError) as caught:
        dataset.write(path, Dataset(X, y, columns=CLASSES))
    assert str(caught.value) == f"{path}: y must be 1 in the column of each row's class, and 0 elsewhere"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": X, "y": Y, "columns": CLASSES.model_dump_json()}, "columns must name 2 of x and 1 of y, got 2 and 3"),
        ([X, Y], KEYS),
        ({"x": X}, KEYS),
        ({"x": X, "y": Y, "z": Y}, KEYS),
        ({"x": X, "y": Y, "columns": COLUMNS.model_dump_json()[:-1]}, NO_COLUMNS),
        ({"x": X, "y": Y, "columns": "{}"}, NO_COLUMNS),
        ({"x": X, "y": Y, "columns": 3}, NO_COLUMNS),
        ({"x": X, "y": Y, "columns": None}, NO_COLUMNS),
        ({"x": X, "y": Y, "decisions": "[1]"}, DECISIONS),
        ({"x": X, "y": Y, "decisions": '{"a": 1}'}, DECISIONS),
        ({"x": X, "y": Y, "decisions": "{"}, DECISIONS),
        ({"x": X, "y": Y, "decisions": 3}, DECISIONS),
        ({"x": X, "y": Y, "digest": "a digest"}, "digest must be a text of hexadecimal digits, got 'a digest'"),
        ({"x": X, "y": Y, "digest": 3}, "digest must be a text of hexadecimal digits, got 3"),
        (
            {"x": Y, "y": Y, "columns": COLUMNS.model_dump_json()},
            "columns must name 1 of x and 1 of y, got 2 and 1",
        ),
        ({"x": X, "y": 3}, "y must be a float32 tensor of two dimensions, got int"),
        ({"x": X.double(), "y": Y}, r"x must be a float32 tensor of two dimensions, got torch.float64 \(5, 2\)"),
        ({"x": X, "y": Y[:, 0]}, r"y must be a float32 tensor of two dimensions, got torch.float32 \(5,\)"),
        ({"x": X[:0], "y": Y[:0]}, r"x must have at least one row and one column, got torch.float32 \(0, 2\)"),
        ({"x": X[:, :0], "y": Y}, r"x must have at least one row and one column, got torch.float32 \(5, 0\)"),
        ({"x": X, "y": Y.where(Y != Y[3], torch.nan)}, "y must be finite, got nan or inf"),
        ({"x": X.where(X != X[0, 1], torch.inf), "y": Y}, "x must be finite, got nan or inf"),
        ({"x": X, "y": Y, "noise_variance": -1.0}, "noise_variance must be a finite float of at least 0, got -1.0"),
        ({"x": X, "y": Y, "noise_variance": 1}, "noise_variance must be a finite float of at least 0, got 1"),
        ({"x": X, "y": Y[:4]}, "x and y must have the same number of rows, got 5 and 4"),
    ],
)
def test_a_file_against_the_contract_is_refused(path: str, data: object, message: str) -> None:
    torch.save(data, path)
    with pytest.raises(UserError, match=f"^{path}: {message}$"):
        dataset.read(path)


@pytest.mark.parametrize(
    "unusual",
    [
        lambda x: x.T.contiguous().T,
        lambda x: x[:1].expand(5, 2),
        Tensor.to_sparse,
        Tensor.to_sparse_csr,
        lambda x: torch.nested.nested_tensor(list(x)),
        lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
        nn.Parameter,
        lambda x: x.clone().requires_grad_(),
        lambda x: torch.imag(torch.complex(x, x).conj()),  # holds its negative, and a flag
        lambda x: x.to("meta"),
    ],
    ids="strided expanded coo csr nested jagged parameter requires_grad negated meta".split(),
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_of_an_unusual_kind_is_refused(path: str, unusual: Callable[[Tensor], Tensor]) -> None:
    torch.save({"x": unusual(X), "y": Y}, path)
    rule = "x must be a plain tensor: dense, contiguous, on the CPU, without requires_grad"
    with pytest.raises(UserError, match=f"^{path}: {rule}$"):
        dataset.read(path)


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_tensor_is_refused(path: str) -> None:
    torch.save({"x": torch.quantize_per_tensor(X, 0.1, 0, torch.quint8), "y": Y}, path)
    with pytest.raises(UserError, match=r"x must be a float32 tensor of two dimensions, got torch.quint8 \(5, 2\)$"):
        dataset.read(path)


class Subclass(Tensor):
    """A class that torch.load does not know."""


def test_a_tensor_of_a_class_of_its_own_is_refused(path: str) -> None:
    torch.save({"x": X.as_subclass(Subclass), "y": Y}, path)
    refused(path)


@pytest.mark.parametrize("n", [1, 3, 5, 10, 50, 1000])
def test_points_saved_by_plain_torch_are_read(tmp_path: Path, n: int) -> None:
    table = torch.rand(2 * n, 1)
    for half in (table[:n], table[n:]):  # views of what they were cut from
        path = tmp_path / "my own.points.pt"  # whose stem is the archive's name
        torch.save({"x": half, "y": half}, path)
        assert torch.equal(dataset.read(str(path)).x, half)


def rezipped(
    path: str, compression: int = zipfile.ZIP_STORED, change: Callable[[str, bytes], bytes] = lambda _, data: data
) -> bytes:
    """Return the archive at path, rewritten with its records changed."""
    target = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", compression) as archive:
        for name in source.namelist():
            archive.writestr(name, change(name, source.read(name)))
    return target.getvalue()


def refused(path: str) -> None:
    with pytest.raises(UserError, match=f"^{path}: is not a dataset of this project, or is damaged: run `dvc repro`$"):
        dataset.read(path)


@pytest.mark.parametrize("n", [1, 3, 5, 10, 50, 1000])
def test_a_compressed_archive_is_refused(path: str, n: int) -> None:
    dataset.write(path, Dataset(torch.zeros(n, 1), torch.zeros(n, 1)))
    Path(path).write_bytes(rezipped(path))
    assert len(dataset.read(path).x) == n
    Path(path).write_bytes(rezipped(path, zipfile.ZIP_DEFLATED))
    refused(path)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the most memory that a process had")
def test_a_zip_bomb_is_refused_before_it_unfolds(path: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as bomb:
        for _ in range(1 << 7):
            bomb.write(bytes(1 << 20))
    lines = f"""
        import re
        from pathlib import Path
        from stages import dataset
        from stages.runtime.errors import UserError
        most = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        before = most()
        try:
            dataset.read({path!r})
        except UserError:
            print(most() - before)
    """
    assert int(ran(lines)) < 1 << 15  # KiB


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
def test_a_dataset_that_does_not_fit_the_memory_says_so(path: str) -> None:
    dataset.write(path, Dataset(torch.zeros(1 << 24, 1), torch.zeros(1 << 24, 1)))
    lines = f"""
        import re, resource
        from pathlib import Path
        from stages import dataset
        from stages.runtime.run import message_for_user
        taken = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
        resource.setrlimit(resource.RLIMIT_DATA, (taken + (1 << 25), taken + (1 << 25)))
        try:
            dataset.read({path!r})
        except Exception as error:
            print(message_for_user(error))
    """
    assert ran(lines).startswith("out of memory: ")


def ran(lines: str) -> str:
    """Return what a new Python process prints when it runs these lines."""
    return subprocess.run([sys.executable, "-c", dedent(lines)], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "name",
    [
        b"archive/code/net.py",
        b"archive/data/0/",
        b"other/data/7",
        b"archive/data/../7",
        b"another/data/7",
        b"archive/version\0",
        b"version",
    ],
)
def test_a_record_of_another_name_is_refused(path: str, name: bytes) -> None:
    dataset.write(path, Dataset(X, Y))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("?" * len(name), b"")
    Path(path).write_bytes(Path(path).read_bytes().replace(b"?" * len(name), name))
    refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name_are_refused(path: str) -> None:
    dataset.write(path, Dataset(X, Y))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(X.nbytes))
    refused(path)


@pytest.mark.parametrize(
    ("before", "behind"), [(b"x", b""), (b"", b"x"), (b"", bytes(10**5)), (b"two", b""), (b"", b"two")]
)
def test_what_lies_before_or_behind_the_archive_is_refused(path: str, before: bytes, behind: bytes) -> None:
    dataset.write(path, Dataset(X + 1, Y))
    two = {b"two": Path(path).read_bytes()}
    dataset.write(path, Dataset(X, Y))
    Path(path).write_bytes(two.get(before, before) + Path(path).read_bytes() + two.get(behind, behind))
    refused(path)


def test_an_archive_with_a_comment_is_refused(path: str) -> None:
    dataset.write(path, Dataset(X, Y))
    with zipfile.ZipFile(path, "a") as records:  # a comment that looks like the last parts of an archive
        records.comment = TAIL.pack(0, b"", 0, b"none", records.start_dir)
    refused(path)


def test_an_archive_behind_a_file_that_torch_reads_instead_is_refused(path: str) -> None:
    torch.save({"x": X, "y": Y}, path, _use_new_zipfile_serialization=False)
    content = io.BytesIO()
    torch.save({"x": X, "y": Y}, content)
    with zipfile.ZipFile(path, "a") as target, zipfile.ZipFile(content) as source:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    refused(path)


def test_a_record_within_another_is_refused(path: str) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as records:
        records.writestr("archive/data/3", bytes(9999))
        (within,) = records.infolist()
    dataset.write(path, Dataset(X, Y))
    with zipfile.ZipFile(path, "a") as records:
        records.writestr("archive/data/2", inner.getvalue())
        within.header_offset = records.infolist()[-1].header_offset + len("archive/data/2") + 30  # of its header
        records.filelist.append(within)
    refused(path)


def test_a_value_that_its_checksum_does_not_fit_is_refused(path: str) -> None:
    dataset.write(path, Dataset(X, Y))
    content = Path(path).read_bytes()
    Path(path).write_bytes(content.replace(X.numpy().tobytes(), (X + 1).numpy().tobytes()))
    refused(path)


def test_an_archive_whose_directories_differ_is_refused(path: str) -> None:
    dataset.write(path, Dataset(X, Y))
    content = bytearray(Path(path).read_bytes())
    content[-34] ^= 1  # where the last bytes say that the directory of large archives is
    Path(path).write_bytes(content)
    refused(path)


@pytest.mark.parametrize("order", [b"big", b"little-endian", b""])
def test_another_byte_order_is_refused(path: str, order: bytes) -> None:
    dataset.write(path, Dataset(X, Y))
    content = rezipped(path, change=lambda name, data: order if name.endswith("byteorder") else data)
    Path(path).write_bytes(content)
    refused(path)


def test_a_record_shorter_than_its_tensor_is_refused(path: str) -> None:
    dataset.write(path, Dataset(X, Y))
    content = rezipped(path, change=lambda name, data: data[:4] if name.endswith("data/0") else data)
    Path(path).write_bytes(content)
    refused(path)


def test_what_was_read_stays_when_the_file_changes(path: str) -> None:
    dataset.write(path, Dataset(X, Y))
    read = dataset.read(path)
    Path(path).write_bytes(bytes(Path(path).stat().st_size))
    os.truncate(path, 0)
    assert torch.equal(read.x, X)
    assert torch.equal(read.y, Y)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names")
def test_a_pipe_and_a_device_are_reported_rather_than_waited_for(path: str) -> None:
    os.mkfifo(path)
    for each in (path, "/dev/zero"):
        with pytest.raises(
            UserError, match=f"^{each}: cannot be read: Not a regular file: fix this, then run `dvc repro`$"
        ):
            dataset.read(each)


def test_points_against_the_contract_are_not_written(path: str) -> None:
    with pytest.raises(UserError, match="y must be finite"):
        dataset.write(path, Dataset(X, Y / 0))
    assert not Path(path).exists()


def test_a_missing_or_damaged_file_says_what_to_do(path: str) -> None:
    with pytest.raises(UserError, match="is missing: run `dvc repro`$"):
        dataset.read(path)
    dataset.write(path, Dataset(X, Y))
    Path(path).write_bytes(Path(path).read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged: run `dvc repro`$"):
        dataset.read(path)

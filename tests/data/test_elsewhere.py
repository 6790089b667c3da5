"""Archives in a store elsewhere, as its own packages serve and read it: moto's S3 on this machine,
by fsspec and s3fs; and archives and tables as WebDataset and Hugging Face's datasets write them.
"""

import io

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.files.images import decode_image
from jaxcnn.data.files.pack import pack as pack_folder
from jaxcnn.data.files.shards import Shards, Tables
from jaxcnn.data.recorded import files_of
from jaxcnn.errors import DataError
from tests.data.test_shards import CLASSES, SIZE, picture, shards

COUNT = 60
ALL = {"image_size": SIZE, "eval_fraction": 0.0, "memory_mib": 0}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def check(data):
    """The pictures and labels of `numbers`, in their order."""
    found = data.open("train").take(np.arange(COUNT))
    expected = [decode_image(picture(i), name="x", size=SIZE, channels=3) for i in range(COUNT)]
    np.testing.assert_array_equal(found["image"], expected)
    np.testing.assert_array_equal(found["label"], np.arange(COUNT) % 3)


@pytest.fixture
def bucket(monkeypatch):
    """The URL of an empty bucket, and what puts files there."""
    server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    service = server.ThreadedMotoServer(port=0, verbose=False)
    service.start()
    host, port = service.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    system.mkdir("bucket")
    yield "s3://bucket", system
    s3fs.S3FileSystem.clear_instance_cache()
    service.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_archives_in_a_bucket_give_what_they_give_here(bucket, tmp_path):
    url, system = bucket
    shards(tmp_path / "tar", count=COUNT, each=25)
    system.put(str(tmp_path / "tar"), "bucket/", recursive=True)
    for place in (f"{url}/tar", f"{url}/tar/part-*.tar", f"{url}/tar/part-{{000..002}}.tar"):
        check(Shards(place, **ALL))
        assert files_of(Shards(place)) == files_of(Shards(str(tmp_path / "tar")))
    with pytest.raises(DataError, match=r"part-003.tar: there is no such file"):
        Shards(f"{url}/tar/part-{{000..003}}.tar").size("train")
    source = Shards(f"{url}/tar", **ALL).open("train")
    system.rm("bucket/tar", recursive=True)
    with pytest.raises(DataError, match=r"s3://bucket/tar/part-000.tar: cannot be read"):
        source.take(np.arange(1))


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_archives_of_webdataset_are_read_and_ours_by_it(tmp_path):
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(f"{tmp_path}/a-%06d.tar", maxcount=25, verbose=0) as writer:
        for i in range(COUNT):
            row = {"png": picture(i), "cls": i % 3, "json": {"label": CLASSES[i % 3]}}
            writer.write({"__key__": f"{i:06d}"} | row)
    check(Shards(f"{tmp_path}/a-{{000000..000002}}.tar", **ALL))
    named = Shards(f"{tmp_path}/a-*.tar", label="json:label", **ALL)
    check(named)
    assert named.label_names == CLASSES
    for i in range(COUNT):
        folder = tmp_path / "photos" / CLASSES[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(picture(i))
    pack_folder(str(tmp_path / "photos"), str(tmp_path / "packed"), largest=5000)
    paths = sorted(str(path) for path in (tmp_path / "packed").glob("*.tar"))
    rows = [(row["png"], row["cls"]) for row in wds.WebDataset(paths, shardshuffle=False)]
    assert sorted(rows) == sorted((picture(i), CLASSES[i % 3].encode()) for i in range(COUNT))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tables_of_hugging_face_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = {"label": datasets.ClassLabel(names=list(CLASSES)), "image": datasets.Image()}
    pictures = [Image.open(io.BytesIO(picture(i))) for i in range(COUNT)]
    rows = {"image": pictures, "label": [i % 3 for i in range(COUNT)]}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    made.save_to_disk(str(tmp_path / "arrow"), num_shards=3)
    made.to_parquet(str(tmp_path / "a.parquet"))
    for place in (tmp_path / "arrow", tmp_path / "a.parquet"):
        data = Tables(str(place), **ALL)
        check(data)
        assert data.label_names == CLASSES

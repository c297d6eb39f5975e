"""fastText models from files, against the library's own answers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from fasttext_models import two_languages

from curate.errors import ConfigError, DataError
from curate.fasttextfile import ModelFile


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_languages(tmp_path_factory.mktemp("fasttext"))


def test_labels_and_probabilities_are_the_librarys(trained: Path) -> None:
    file = ModelFile("model.bin", trained.parent)
    texts = ["the sea\nwas calm", "ein schiff", "the meer", None, "", " \n\t", "ship"]
    labels, scores = file.predict(pa.array(texts))
    for text, label, score in zip(texts, labels.to_pylist(), scores.to_pylist(), strict=True):
        if text is None or not text.strip():
            assert (label, score) == (None, None)
            continue
        (name,), (share,) = file.load().predict(text.replace("\n", " "))
        assert label == name.removeprefix("__label__")
        assert score == pytest.approx(min(share, 1.0), abs=1e-6)
        assert 0 < score <= 1
    assert labels.to_pylist()[:2] == ["eng", "deu"]


def test_the_key_and_the_loaded_model_are_of_the_content(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.bin"
    copy.write_bytes(trained.read_bytes())
    before = ModelFile("copy.bin", tmp_path)
    key = before.key()
    assert key == ModelFile("model.bin", trained.parent).key()
    loaded = before.load()
    content = trained.read_bytes()
    copy.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size, in the same moment
    after = ModelFile("copy.bin", tmp_path)
    assert after.key() != key
    assert before.key() == after.key()  # a stage may outlive what a file held
    assert after.load() is not loaded


def test_no_file_and_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got nothing at .*lid\.bin; `curate fetch`"):
        ModelFile("lid.bin", tmp_path)
    (tmp_path / "lid.bin").write_text("a page that says 404")
    with pytest.raises(DataError, match=r"expected a fastText model at .*lid\.bin"):
        ModelFile("lid.bin", tmp_path).load()

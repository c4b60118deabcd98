"""What a client is told of a load that failed."""

from __future__ import annotations

from naiad.server.failures import without_paths


def test_w69_no_text_says_where_a_model_lies(tmp_path):
    real = tmp_path / "store" / "m"
    real.mkdir(parents=True)
    link = tmp_path / "models"
    link.symlink_to(tmp_path / "store")
    for place in (link / "m", real):
        text = without_paths(f"cannot open {place}/1/model.pt of {place}: no", link / "m")
        assert text == "cannot open m/1/model.pt of m: no"
    assert without_paths("cannot open /etc/x", real) == "cannot open /etc/x"

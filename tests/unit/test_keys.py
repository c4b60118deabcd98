from __future__ import annotations

import pytest

from naiad import keys


def test_a_key_has_its_form_and_is_found_by_its_id():
    secret = keys.make_key()
    text = secret.reveal()
    assert len(text) == 43
    assert keys.key_id(text) == text[3:11]
    assert keys.make_key().reveal() != text


@pytest.mark.parametrize(
    "text", ["", "nk_", "nk_" + "a" * 39, "nk_" + "a" * 41, "NK_" + "a" * 40, "nk_" + "-" * 40, "nk_" + "a" * 40 + "\n"]
)
def test_what_is_no_key(text):
    assert keys.key_id(text) is None


def test_a_secret_prints_as_stars():  # H3
    secret = keys.make_key()
    assert f"{secret} {secret!r} {[secret]}" == "*** *** [***]"


def test_a_row_holds_the_digest_and_not_the_key():
    secret = keys.make_key()
    row = keys.row(secret, scopes=["infer"], services=["digits"])
    assert row["digest"] == keys.digest(secret.reveal())
    assert secret.reveal() not in str(row)
    with pytest.raises(ValueError, match="unknown scope 'root'"):
        keys.row(secret, scopes=["root"], services=[])

"""`--http-restricted-api` and `--grpc-restricted-protocol`."""

from __future__ import annotations

import pytest

from naiad import keys
from naiad.errors import ConfigError
from naiad.server import restricted


def test_groups_become_rows_and_values_become_digests():
    found = restricted.rows(["inference,health:x-admin=a=b:c", "trace:other=1"])
    assert found == [
        {"categories": ["inference", "health"], "key": "x-admin", "digest": keys.digest("a=b:c")},
        {"categories": ["trace"], "key": "other", "digest": keys.digest("1")},
    ]


@pytest.mark.parametrize("text", ["", "inference", "inference:k", "inference:=v", "inference:k=", "inference:a b=c"])
def test_h3_what_cannot_be_read_is_refused_without_the_value(text):
    with pytest.raises(ConfigError, match="expected CATEGORY"):
        restricted.rows([text])


def test_categories_are_known_and_in_one_group_at_most():
    with pytest.raises(ConfigError, match="unknown category 'admin'; known: health, metadata"):
        restricted.rows(["admin:k=v"])
    with pytest.raises(ConfigError, match="'trace' is in more than one group"):
        restricted.rows(["trace:k=v", "health,trace:l=w"])

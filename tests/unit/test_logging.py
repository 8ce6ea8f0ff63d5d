"""What the engine says through the logger `ego`."""

import logging

import pytest

from ego._logging import log_opened


def test_a_torn_end_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ego"):
        log_opened("bank", {"torn": {"file": "00000001.seg", "offset": 4096, "bytes": 17}})
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("ego", "WARNING")
    for fact in ("bank", "00000001.seg", "4096", "17"):
        assert fact in record.getMessage()


def test_a_clean_start_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ego"):
        log_opened("bank", {"torn": None, "position": 12})
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "'position': 12" in record.getMessage()

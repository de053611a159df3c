"""The traffic benchmark reads FLARE's log and divides the right numbers."""

import pytest
from bench_traffic import VARIANTS, compared, table, wire

LOG = [
    "function - INFO - [client] download ref=6a28 done: elapsed=0.04s size=0.3MB (268,384 bytes)",
    "Communicator - INFO - Received from server. getTask: train size: 14.3KB (14286 Bytes) time: 0.165040 seconds",
    "_Transaction - INFO - [server] download tx T67 done: status=finished elapsed=0.05s size=0.3MB (268,385 bytes)",
    "Communicator - INFO - SubmitUpdate to: server. size: 14.1KB (14138 Bytes). time: 0.048726 seconds",
    "function - INFO - [client] download ref=40d2 done: elapsed=0.02s size=0.3MB (999 bytes)",
    "Communicator - INFO - Received from server. getTask: validate size: 14.3KB (998 Bytes) time: 0.037844 seconds",
]


def test_message_and_tensors_are_read_from_the_clients_log():
    assert wire(LOG) == {
        "down": {"message": 14286, "tensors": 268384},
        "up": {"message": 14138, "tensors": 268385},
    }


def test_a_log_without_an_upload_is_no_measurement():
    with pytest.raises(RuntimeError, match="SubmitUpdate"):
        wire(LOG[:2])


def test_ratios_are_to_full_fine_tuning_of_as_many_classes():
    def result(entry, classes, size):
        return {"entry": entry, "classes": classes, "values": 1, "least": 2, "down": size, "up": 2 * size}

    found = compared([result("full_ft-a", 1, 100), result("x", 1, 10), result("x", 2, 10), result("full_ft-b", 2, 40)])
    assert [item["ratios"].get("up") for item in found] == [1, 10, 4, 1]
    assert "10.0x" in table(found)


def test_the_variants_are_named_once():
    assert len({entry.name for entry in VARIANTS}) == len(VARIANTS)

"""A worker makes what the settings name."""

import pytest

from services.capture.uplink import Uplink
from services.capture.uplinks import Uplinks
from services.capture.worker import _uplink, open_targets
from services.runtime.errors import UserError
from services.runtime.settings import CaptureSettings, load


@pytest.mark.parametrize("addresses", ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:1"])
def test_one_address_is_one_scheduler(addresses, tmp_path):
    settings = load(CaptureSettings, {"scheduler": addresses, "spool": tmp_path})
    made = _uplink(settings)
    assert isinstance(made, Uplink)
    made.stop()
    assert not list(tmp_path.glob("to-*"))


def test_each_of_several_schedulers_has_a_spool_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RECORDER_SCHEDULER", "recorder-0.local:8897, [::1]:8897")
    made = _uplink(load(CaptureSettings, {"spool": tmp_path, "node": "node-1"}))
    assert isinstance(made, Uplinks)
    made.stop()
    folders = sorted(folder.name for folder in tmp_path.iterdir())
    assert folders == ["to-_::1__8897".replace(":", "_"), "to-recorder-0.local_8897"]


def test_targets_are_pods_so_names_have_to_be_known(tmp_path):
    file = tmp_path / "targets.json"
    file.write_text('{"namespaces": ["shop"]}')
    settings = load(CaptureSettings, {"targets": str(file)})
    with pytest.raises(UserError, match="takes --kube"):
        open_targets(settings)
    assert (
        "shop" in open_targets(settings.model_copy(update={"kube": "in-cluster"})).current.condition
    )
    assert open_targets(load(CaptureSettings, {})) is None

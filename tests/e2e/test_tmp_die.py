import time, json
from tests.lab.lab import Lab, document
from tests.lab.topology import vip
import pytest
@pytest.mark.parametrize("n", [1])
def test_die(lab: Lab, n) -> None:
    v = vip(0)
    lab.put("web", document(v))
    lab.settle(v)
    lab.lb2.die()
    time.sleep(1)
    lab.consul.delete("anycastlb/services/web")
    time.sleep(1)
    lab.lb2.plug(); lab.lb2.start()
    for i in range(12):
        time.sleep(1)
        try:
            print(i, lab.lb2.ipvs(), lab.lb2.vips(), json.dumps(lab.lb2.status().get("leaving")), lab.lb2.http("/readyz"))
        except Exception as e:
            print(i, lab.lb2.ipvs(), e)
    print(lab.lb2.daemon.tail(60))
    assert 0

"""The picture of a node as text, written anew only where it has changed: always the one that is written whole."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from anycastlb.core.model import Cluster, Snapshot
from anycastlb.serving.pieces import Pieces
from anycastlb.serving.views.status import status_view
from anycastlb.serving.views.status_text import StatusTexts
from anycastlb.serving.views.text import MARK
from tests.support import scene


def pictures() -> list[Snapshot]:
    """Snapshots of which each differs from another in one thing."""
    calm, trouble, subtle = scene.calm(), scene.trouble(), scene.subtle()
    decision, inputs = trouble.decision, trouble.inputs
    turned = {check: replace(state, up=not state.up) for check, state in inputs.health.items()}
    alike = dict.fromkeys(inputs.health, next(iter(inputs.health.values())))
    (first, verdict), *others = decision.backends.items()
    open_now = {vip: replace(v, open=not v.open) for vip, v in decision.verdicts.items()}
    moved = replace(scene.WEB, backends=scene.WEB.backends[::-1])
    return [
        calm,
        trouble,
        subtle,
        scene.subtle(flaps=2),
        Snapshot(),
        replace(trouble, inputs=replace(inputs, health=turned)),
        replace(trouble, inputs=replace(inputs, health={})),
        replace(trouble, inputs=replace(inputs, health=alike)),
        replace(trouble, inputs=replace(inputs, catalog=replace(inputs.catalog, services=(moved,)))),
        replace(trouble, inputs=replace(inputs, cluster=Cluster(follows=True))),
        replace(trouble, decision=replace(decision, backends=dict(others))),
        replace(trouble, decision=replace(decision, backends={**decision.backends, first: replace(verdict, weight=3)})),
        replace(trouble, decision=replace(decision, verdicts=open_now)),
        replace(trouble, decision=replace(decision, memory=replace(decision.memory, leaving={}))),
        replace(trouble, decision=replace(decision, memory=replace(decision.memory, gates={}))),
        replace(trouble, failures=()),
        replace(trouble, pending=()),
        replace(trouble, speaker=calm.speaker),
        replace(trouble, actual=calm.actual),
        replace(trouble, actual=replace(trouble.actual, routes={}, addresses={})),
        replace(trouble, actual=replace(trouble.actual, services={}, destinations={})),
    ]


def said(text: Pieces) -> str:
    return b"".join(text).decode()


@pytest.mark.parametrize("seed", range(5))
def test_after_any_history_it_is_what_is_written_whole(seed: int) -> None:
    texts, chance, now = StatusTexts(), Random(seed), scene.NOW
    for snapshot in chance.choices(pictures(), k=60):
        now += chance.choice([0.0, 0.25, 3.0])
        whole = status_view(snapshot, now, scene.SOURCE)
        text, _ = texts.status(snapshot, now, scene.SOURCE)
        assert said(text) == json.dumps(whole)
        text, _ = texts.vips(snapshot, now)
        assert said(text) == json.dumps({"vips": whole["vips"]})
        assert MARK not in said(text)


def test_the_tag_is_another_when_more_than_ages_differs() -> None:
    texts, snapshots = StatusTexts(), pictures()
    for before in snapshots:
        first, tag = texts.vips(before, scene.NOW)
        assert texts.vips(replace(before), scene.NOW + 1.0)[1] == tag, "only ages differ"
        _, status = texts.status(before, scene.NOW, "")
        for after in snapshots:
            text, other = texts.vips(after, scene.NOW)
            assert text == first or other != tag
            whole, around = texts.status(after, scene.NOW, "")
            assert around != status or whole == texts.status(before, scene.NOW, "")[0]
            _, tag = texts.vips(before, scene.NOW)
            _, status = texts.status(before, scene.NOW, "")


def test_a_document_cannot_look_like_a_gap() -> None:
    """A text that only resembles the mark, or carries an old one, is shown as it is."""
    service = replace(scene.WEB, name=f'"{"0" * len(MARK)}1"')
    trouble = scene.trouble()
    snapshot = replace(
        trouble, inputs=replace(trouble.inputs, catalog=replace(trouble.inputs.catalog, services=(service,)))
    )
    text, _ = StatusTexts().status(snapshot, scene.NOW, "")
    assert json.loads(said(text)) == json.loads(json.dumps(status_view(snapshot, scene.NOW, "")))

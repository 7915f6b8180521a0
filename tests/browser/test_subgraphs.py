"""What a comparison shows on nodes at both sides of a subgraph's border."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

JOIN = """
([poses, matrix]) => {
    const [from, to] = [poses, matrix].map((id) => app.graph.getNodeById(id))
    from.connect(0, to, to.inputs.findIndex((input) => input.name === "poses"))
}
"""
# Puts a node into a subgraph; the subgraph node's id, and the node's own inside of it.
ENCLOSE = """
(id) => {
    const { subgraph, node } = app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)]))
    return [node.id, subgraph.nodes[0].id].join(":")
}
"""
GOT = "() => [...document.querySelectorAll('.lk-got')].map((got) => got.textContent)"


@pytest.fixture
def pair(editor):
    """A Pose Set that is wired to a Matrix, by their ids."""
    ids = editor.add("Likeness_PoseSet"), editor.add("Likeness_Matrix")
    editor.page.evaluate(JOIN, list(ids))
    return ids


def told(editor, matrix, wait_for, chosen):
    """Says as the server does which column of a comparison got which pose, until it is shown."""
    value = {"kitchen": chosen}
    board = {"workflow": "", "node": str(matrix), "kind": "poses", "value": value}
    editor.tell("likeness.board", board)
    wait_for(editor, lambda: "kitchen" in editor.page.evaluate(GOT), 10)


def test_a_pose_set_shows_what_its_matrix_in_a_subgraph_chose(editor, pair, wait_for):
    _, matrix = pair
    told(editor, editor.page.evaluate(ENCLOSE, matrix), wait_for, "tree")


def test_a_pose_set_in_a_subgraph_shows_what_the_matrix_outside_chose(editor, pair, wait_for):
    poses, matrix = pair
    inner = editor.page.evaluate(ENCLOSE, poses)
    subgraph = inner.split(":")[0]
    editor.page.evaluate(
        "(id) => app.canvas.openSubgraph?.(app.graph.getNodeById(Number(id)).subgraph)", subgraph
    )
    told(editor, matrix, wait_for, "tree")

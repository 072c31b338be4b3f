"""Graphs saved for the older pack, opened in the page: one press, and they run."""

from __future__ import annotations

from test_migration import assert_replaced, old_workflow

# Frontend 1.58 draws once while a node that it replaces is in no graph.
THEIRS = "error: Attempted to access LGraph reference that was null or undefined."


def test_replace_all_and_run(editor):
    editor.load(old_workflow())
    editor.page.get_by_role("button", name="View details").click()
    editor.page.get_by_role("button", name="Replace All").click()
    editor.page.wait_for_function("() => !app.graph.nodes.some(node => node.type.startsWith('JoyAI'))")
    assert_replaced(editor.prompt())
    editor.run()
    editor.complaints[:] = [complaint for complaint in editor.complaints if complaint != THEIRS]

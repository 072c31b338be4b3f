"""GitHub's files: workflows, issue forms and hooks say what GitHub and pre-commit ask for, and call what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")]
HOOKS = ROOT / ".pre-commit-config.yaml"
EVERY = [*WORKFLOWS, *FORMS, GITHUB / "ISSUE_TEMPLATE" / "config.yml", HOOKS]
RUNNERS = {"ubuntu-latest", "windows-latest", "macos-latest"}
EVENTS = {"push", "pull_request", "schedule", "workflow_dispatch"}
ACTION = re.compile(r"[\w.-]+/[\w./-]+@[\w./-]+")
ACTIONS = {"actions", "Comfy-Org", "pypa"}  # whose actions may run
# What GitHub's form schema asks of each type of field, and what more it takes.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "markdown": ({"value"}, set()),
    "textarea": ({"label"}, {"description", "placeholder", "value", "render"}),
    "input": ({"label"}, {"description", "placeholder", "value"}),
    "dropdown": ({"label", "options"}, {"description", "multiple", "default"}),
    "checkboxes": ({"label", "options"}, {"description"}),
}
FORM_KEYS = {"name", "description", "body", "labels", "title", "assignees", "projects", "type"}
WITHOUT_DIFFUSERS = "import sys; sys.modules['diffusers'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> dict[Any, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    return read(workflow)["jobs"]


def scripts(workflow: Path) -> list[str]:
    return [step["run"] for job in jobs(workflow).values() for step in job["steps"] if "run" in step]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w$()/.-]+):(?!=)", text, re.MULTILINE)
    return {target.replace("$(VENV)", ".venv") for target in targets}


def called_targets(text: str) -> set[str]:
    """The targets of every `make` in a text of commands or of Markdown."""
    calls = re.findall(r"(?:^ {4,}|`|run: )make ([^#`\n]*)", text, re.MULTILINE)
    return {word for call in calls for word in shlex.split(call) if "=" not in word}


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_it_is_yaml(path):
    assert read(path) is not None


def test_every_file_is_looked_at():
    assert {*GITHUB.rglob("*.y*ml"), HOOKS} == set(EVERY)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_workflows_have_events_and_jobs_with_steps(workflow):
    found = read(workflow)
    events = found[True]  # YAML 1.1 takes the word "on" for yes
    assert events and set(events) <= EVENTS
    assert found["name"] and found["permissions"] == {"contents": "read"}
    for job, values in found["jobs"].items():
        matrix = values.get("strategy", {}).get("matrix", {})
        runners = matrix["os"] if values["runs-on"] == "${{ matrix.os }}" else [values["runs-on"]]
        assert set(runners) <= RUNNERS, job
        assert values["steps"], job
        assert set([values["needs"]] if "needs" in values else []) <= set(found["jobs"]), job
        for step in values["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert set(step) <= {"name", "run", "uses", "with", "env", "if", "id"}, step


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_actions_are_pinned_to_a_version_and_of_known_owners(workflow):
    used = [step["uses"] for job in jobs(workflow).values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(ACTION.fullmatch(action) and action.split("/")[0] in ACTIONS for action in used)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_expressions_name_what_the_file_defines(workflow):
    text = workflow.read_text(encoding="utf-8")
    defined = {key for job in jobs(workflow).values() for key in job.get("strategy", {}).get("matrix", {})}
    assert set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", text)) == defined
    assert set(re.findall(r"\$\{\{ secrets\.(\w+) \}\}", text)) <= {"REGISTRY_ACCESS_TOKEN"}


def test_every_make_target_that_is_named_is_there():
    pages = [ROOT / "CONTRIBUTING.md", GITHUB / "PULL_REQUEST_TEMPLATE.md", *sorted((ROOT / "docs").rglob("*.md"))]
    called = {target for page in [*WORKFLOWS, *pages] for target in called_targets(page.read_text(encoding="utf-8"))}
    assert {"demo", "quick", "test", "comfyui", "check-model", "test-browser"} <= called
    assert called <= make_targets()


@pytest.mark.slow
def test_where_diffusers_cannot_be_the_tests_that_need_none_are_found():
    """As on the oldest Python. Imported or not, no file of them is an error."""
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--ignore=tests/comfy"]
    command = [sys.executable, "-c", WITHOUT_DIFFUSERS, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    collected = {ROOT / file for file in re.findall(r"^(tests/[\w/]+\.py): \d+$", done.stdout, re.MULTILINE)}
    left_out = {*(ROOT / "tests").glob("test_*.py"), *(ROOT / "tests" / "model").glob("test_*.py")} - collected
    assert len(collected) > len(left_out) > 2
    assert all("diffusers" in file.read_text(encoding="utf-8") for file in left_out)
    (said,) = re.findall(r"^(\d+) FILES THAT COMPARE WITH DIFFUSERS DID NOT RUN", done.stdout, re.MULTILINE)
    assert int(said) >= len(left_out)  # those in tests/comfy are among them


def test_both_ends_of_the_supported_pythons_are_tried():
    text = (GITHUB / "workflows" / "test.yml").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    (oldest,) = re.findall(r'^requires-python = ">=(.+)"$', project, re.MULTILINE)
    assert named[0] == oldest
    tried = set(re.findall(r'"(3\.\d+)"', text))
    assert {named[0], named[-1]} <= tried <= set(named)


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_forms_have_what_github_asks_for(form):
    found = read(form)
    assert {"name", "description", "body"} <= set(found) <= FORM_KEYS
    assert all(isinstance(found[key], str) and found[key].strip() for key in ("name", "description"))
    fields = found["body"]
    assert any(field["type"] != "markdown" for field in fields)
    ids = [field["id"] for field in fields if "id" in field]
    labels = [field["attributes"]["label"] for field in fields if field["type"] != "markdown"]
    assert len(set(ids)) == len(ids) and len(set(labels)) == len(labels)
    for field in fields:
        required, more = FIELDS[field["type"]]
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert required <= set(field["attributes"]) <= required | more
        assert "id" in field or field["type"] == "markdown"
        assert re.fullmatch(r"[\w-]+", field.get("id", "markdown"))
        assert all(isinstance(value, bool) for value in field.get("validations", {}).values())
        for key, value in field["attributes"].items():
            texts = value if key == "options" else [value]
            assert all(isinstance(text, str) and text.strip() for text in texts), (field, key)


def test_the_bug_form_asks_for_versions_and_the_workflow():
    (bug,) = (read(form) for form in FORMS if form.name == "bug.yml")
    required = {field["id"] for field in bug["body"] if field.get("validations", {}).get("required")}
    assert {"comfyui", "pack", "torch", "gpu", "workflow"} <= required


def test_hooks_are_local_and_run_what_make_test_installs():
    repositories = read(HOOKS)["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "types"]
    for hook in hooks:
        assert {"id", "name", "entry", "language"} <= set(hook)
        assert hook["entry"].startswith((".venv/bin/ruff ", ".venv/bin/python -m ")) and hook["language"] == "system"


def test_no_address_is_invented():
    """The repository's address has one place, and what these files name is others'."""
    address = (ROOT / "tools" / "registry" / "address.txt").read_text(encoding="utf-8").strip()
    known = {"https://download.pytorch.org/whl/cpu", address}
    texts = [path.read_text(encoding="utf-8") for path in [*EVERY, GITHUB / "PULL_REQUEST_TEMPLATE.md"]]
    assert {url for text in texts for url in re.findall(r"https?://[^\s\"')]+", text)} <= known

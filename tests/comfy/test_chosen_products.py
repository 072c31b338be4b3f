"""Products with quantised weights chosen for one of two MODELs that share their weights."""

from __future__ import annotations


def test_layers_of_ours_round_activations_for_the_one_model_that_asks(probe):
    found = probe("chosen_products")["ours"]
    for kind in ("default", "exact"):
        assert found[kind] == [[0.0, 0], [0.0, 0]]
    (error, sums), other = found["8bit"]
    assert 1e-3 < error < 0.05 and sums and other == [0.0, 0]


def test_the_hosts_layers_round_them_unless_one_model_asks_for_exact_ones(probe):
    found = probe("chosen_products")["host"]
    assert found["default"] == found["8bit"]
    (error, sums), other = found["default"]
    assert 1e-3 < error < 0.05 and sums
    assert found["exact"] == [[0.0, 0], other]


def test_a_compiled_model_follows_its_choice(probe):
    found = probe("chosen_products")["ours"]
    assert found["compiled"]["exact"] < 1e-5
    assert abs(found["compiled"]["8bit"] - found["8bit"][0][0]) < 1e-3


def test_what_runs_exact_is_said(probe):
    for name in ("ours", "host"):
        assert probe("chosen_products")[name]["note"] == {"8bit": "", "exact": ""}
    found = probe("chosen_products")["fp8"]
    assert found["note"]["8bit"].startswith("float8_e4m3fn runs exact; ") and found["8bit"][0] == [0.0, 0]
